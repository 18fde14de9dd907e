"""The coordinate task: pure noise in, each token's place as shares of the canvas out. What a network must know to draw.

T tokens of a grid (rows, columns); B images of noise.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from experiments.theory.coordinate_arms import CHANNELS, Arm
from ledit_jax.models import LEDiTNetwork, Params, init_params, make_apply
from ledit_jax.models.positions import Grid
from ledit_jax.progress import progress_bar

TRAINED: Grid = (8, 8)
GRIDS: tuple[Grid, ...] = (TRAINED, (12, 12), (16, 16), (32, 32), (8, 16))
CURVE_GRIDS: tuple[Grid, ...] = (TRAINED, (16, 16))
"""Grids that are read at every step of CURVE_STEPS; the others at the end alone."""
CURVE_STEPS = (25, 50, 100, 150, 200, 300, 400)
UNSCALED_GRIDS: tuple[Grid, ...] = ((16, 16),)
"""Grids that are read once more without attention scaling."""
_TOKENS_READ = 8_192
"""About so many tokens are read of each grid, in eight images or more."""
_QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0}
"""For programs that run a few times; their products are the libraries' own at any level."""


@dataclass(frozen=True)
class Task:
    """How a network is trained."""

    steps: int = 500
    batch: int = 32
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Outcome:
    """The errors of one network with one seed."""

    curve: dict[str, dict[str, float]]
    """Training step -> grid -> error, as the network is read by default."""
    errors: dict[str, dict[str, float]]
    """Rope method -> grid -> error at the end, with attention scaling wherever the positions do not sharpen."""
    unscaled: dict[str, dict[str, float]]
    """The same without attention scaling, on UNSCALED_GRIDS."""

    to_dict = asdict


def grid_name(grid: Grid) -> str:
    """(8, 16) -> "8x16"."""
    return f"{grid[0]}x{grid[1]}"


def places(grid: Grid) -> Float[np.ndarray, "h w 2"]:
    """(row, column) of each token's centre as shares of the canvas, counted from its middle: -1/2 to 1/2."""
    rows, columns = ((np.arange(size) + 0.5) / size - 0.5 for size in grid)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).astype(np.float32)


def centre_error(grid: Grid) -> float:
    """Error of always answering the middle: the mean over both axes of (size^2 - 1) / (12 size^2)."""
    return float(np.mean(places(grid) ** 2))


def train_and_read(arm: Arm, task: Task, seed: int, caption: str) -> Outcome:
    """Trains a network and reads it on every grid, along the training and at its end. `caption` opens the bar."""
    network = arm.network(TRAINED)
    params = init_params(network, jax.random.key(seed))
    step, optimizer = _step(network, task)
    opt_state, key, curve = optimizer.init(params), jax.random.key(seed + 1_000), {}
    with progress_bar(caption, task.steps, "step") as bar:
        for index in range(task.steps):
            params, opt_state = step(params, opt_state, jax.random.fold_in(key, index))
            if index + 1 in CURVE_STEPS and index + 1 < task.steps:
                curve[str(index + 1)] = _read(arm, params, CURVE_GRIDS)
            jax.block_until_ready(params)  # keeps the bar honest
            bar.update()
    errors = {method: _read(arm, params, GRIDS, method) for method in arm.rope_methods}
    unscaled = {method: _read(arm, params, UNSCALED_GRIDS, method, "off") for method in arm.rope_methods}
    curve[str(task.steps)] = {grid_name(grid): errors[arm.rope_methods[0]][grid_name(grid)] for grid in CURVE_GRIDS}
    return Outcome(curve, errors, unscaled)


def _read(
    arm: Arm, params: Params, grids: Sequence[Grid], rope_method: str = "plain", scaling: str = "auto"
) -> dict[str, float]:
    network = arm.beyond(TRAINED, rope_method, scaling)
    return {grid_name(grid): float(_reader(network, grid)(params)) for grid in grids}


@functools.lru_cache(maxsize=256)
def _reader(network: LEDiTNetwork, grid: Grid) -> Callable[[Params], Float[Array, ""]]:
    """The mean error on fresh noise, the same for every network; compiled once for all seeds."""
    apply, count = make_apply(network), max(8, _TOKENS_READ // (grid[0] * grid[1]))
    read = lambda params: _error(apply, params, jax.random.key(grid[0] * grid[1]), count, grid)  # noqa: E731
    return jax.jit(read, compiler_options=_QUICK_TO_COMPILE)


def _error(
    apply: Callable[..., Float[Array, "B h w 2"]],
    params: Params,
    key: jax.Array,
    count: int,
    grid: Grid,
    own_key: jax.Array | None = None,
) -> Float[Array, ""]:
    """own_key: of what the network draws in training."""
    noise = jax.random.normal(key, (count, *grid, CHANNELS))
    nothing = jnp.zeros(count, jnp.int32)  # a time and a class that never change
    return jnp.mean((apply(params, noise, nothing, nothing, key=own_key) - places(grid)) ** 2)


@functools.lru_cache(maxsize=64)
def _step(network: LEDiTNetwork, task: Task) -> tuple[Callable, optax.GradientTransformation]:
    apply, optimizer = make_apply(network), optax.adam(task.learning_rate)

    def step(params: Params, opt_state: optax.OptState, key: jax.Array):
        own_key = jax.random.fold_in(key, 1)
        grads = jax.grad(lambda p: _error(apply, p, key, task.batch, TRAINED, own_key))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return jax.jit(step, donate_argnums=(0, 1)), optimizer
