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

from experiments.theory.border import inside
from experiments.theory.coordinate_arms import CHANNELS, Arm
from ledit_jax.models import LEDiTNetwork, Params, init_params, make_apply
from ledit_jax.models.positions import Grid
from ledit_jax.progress import progress_bar

CURVE_STEPS = (25, 50, 100, 150, 200, 300, 400, 500, 750, 1_000, 1_500)
"""Training steps at which the grids of a task's curve are read; its others are at the end alone."""
_TOKENS_READ = 8_192
"""About so many tokens are read of each grid, in eight images or more."""
_QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0}
"""For programs that run a few times; their products are the libraries' own at any level."""


@dataclass(frozen=True)
class Task:
    """How a network is trained, and on which grids it is read."""

    steps: int = 500
    batch: int = 32
    learning_rate: float = 1e-3
    side: int = 8
    """Tokens a side of the grid that is trained on; an even number."""
    width: int = 64
    """Channels of the network."""

    @property
    def trained(self) -> Grid:
        """The grid that is trained on."""
        return self.side, self.side

    @property
    def curve_grids(self) -> tuple[Grid, Grid, Grid]:
        """The trained grid, one and a half times its side, and twice: read at every step of CURVE_STEPS."""
        return self.trained, (self.side * 3 // 2,) * 2, self.twice

    @property
    def twice(self) -> Grid:
        """The grid of twice the side, which is read once more without attention scaling."""
        return (2 * self.side,) * 2

    @property
    def grids(self) -> tuple[Grid, ...]:
        """All that are read at the end."""
        return *self.curve_grids, (4 * self.side,) * 2, (self.side, 2 * self.side)


@dataclass(frozen=True)
class Outcome:
    """The errors of one network with one seed."""

    curve: dict[str, dict[str, dict[str, float]]]
    """Training step -> rope method -> grid -> error, attention scaling as in `errors`."""
    errors: dict[str, dict[str, float]]
    """Rope method -> grid -> error at the end, with attention scaling wherever the positions do not sharpen."""
    unscaled: dict[str, dict[str, float]]
    """The same without attention scaling, on the grid of twice the side."""
    border: dict[str, list[float]]
    """Training step -> errors of the tokens at the trained grid's border and of those inside it, by the first rope
    method, as shares of the errors of always answering the middle there."""

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
    network = arm.network(task.trained, task.width)
    params = init_params(network, jax.random.key(seed))
    step, optimizer = _step(network, task)
    opt_state, key, curve, border = optimizer.init(params), jax.random.key(seed + 1_000), {}, {}
    with progress_bar(caption, task.steps, "step") as bar:
        for index in range(task.steps):
            params, opt_state = step(params, opt_state, jax.random.fold_in(key, index))
            if index + 1 in CURVE_STEPS and index + 1 < task.steps:
                curve[str(index + 1)] = _read(arm, task, params, task.curve_grids)
                border[str(index + 1)] = _read_border(arm, task, params)
            jax.block_until_ready(params)  # keeps the bar honest
            bar.update()
    errors = _read(arm, task, params, task.grids)
    curve_names = [grid_name(grid) for grid in task.curve_grids]
    curve[str(task.steps)] = {method: {name: found[name] for name in curve_names} for method, found in errors.items()}
    border[str(task.steps)] = _read_border(arm, task, params)
    return Outcome(curve, errors, _read(arm, task, params, (task.twice,), "off"), border)


def _read(
    arm: Arm, task: Task, params: Params, grids: Sequence[Grid], scaling: str = "auto"
) -> dict[str, dict[str, float]]:
    """Rope method -> grid -> error."""
    return {
        method: {
            grid_name(grid): float(np.mean(_error_map(arm, task, params, grid, method, scaling))) for grid in grids
        }
        for method in arm.rope_methods
    }


def _read_border(arm: Arm, task: Task, params: Params) -> list[float]:
    found = _error_map(arm, task, params, task.trained, arm.rope_methods[0])
    middle = np.mean(places(task.trained) ** 2, axis=-1)
    within = inside(*task.trained)
    return [float(found[part].mean() / middle[part].mean()) for part in (~within, within)]


def _error_map(
    arm: Arm, task: Task, params: Params, grid: Grid, rope_method: str, scaling: str = "auto"
) -> Float[np.ndarray, "h w"]:
    network = arm.beyond(task.trained, task.width, rope_method, scaling)
    return np.asarray(_reader(network, grid)(params), np.float64)


@functools.lru_cache(maxsize=256)
def _reader(network: LEDiTNetwork, grid: Grid) -> Callable[[Params], Float[Array, "h w"]]:
    """Each token's error on fresh noise, the same for every network; compiled once for all seeds."""
    apply, count = make_apply(network), max(8, _TOKENS_READ // (grid[0] * grid[1]))
    key = jax.random.key(grid[0] * grid[1])
    read = lambda params: jnp.mean(_errors(apply, params, key, count, grid), axis=(0, -1))  # noqa: E731
    return jax.jit(read, compiler_options=_QUICK_TO_COMPILE)


def _errors(
    apply: Callable[..., Float[Array, "B h w 2"]],
    params: Params,
    key: jax.Array,
    count: int,
    grid: Grid,
    own_key: jax.Array | None = None,
) -> Float[Array, "B h w 2"]:
    """Squares. own_key: of what the network draws in training."""
    noise = jax.random.normal(key, (count, *grid, CHANNELS))
    nothing = jnp.zeros(count, jnp.int32)  # a time and a class that never change
    return (apply(params, noise, nothing, nothing, key=own_key) - places(grid)) ** 2


@functools.lru_cache(maxsize=64)
def _step(network: LEDiTNetwork, task: Task) -> tuple[Callable, optax.GradientTransformation]:
    apply, optimizer = make_apply(network), optax.adam(task.learning_rate)

    def step(params: Params, opt_state: optax.OptState, key: jax.Array):
        own_key = jax.random.fold_in(key, 1)
        grads = jax.grad(lambda p: jnp.mean(_errors(apply, p, key, task.batch, task.trained, own_key)))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return jax.jit(step, donate_argnums=(0, 1)), optimizer
