"""Does a network know where its tokens are? A small regression of (row, column) from the output of each block.

  python -m experiments.theory.position_probe --checkpoints=NoPE=runs/study/weights/nope/seed-0,LEDiT=assets/digits \\
      --out=runs/probe

The images are real ones at --timestep; the default, 999, is noise alone, so that nothing shown tells the place. The
error is the mean square of row and column, in tokens; who always answers the centre has (h^2 + w^2 - 2) / 24.
Writes position_probe.png and position_probe.json.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from experiments.theory.block_outputs import block_outputs, noisy_images
from ledit_jax import cli
from ledit_jax.config import Config
from ledit_jax.errors import ConfigError
from ledit_jax.files import write_json
from ledit_jax.models import Params
from ledit_jax.progress import progress_bar
from ledit_jax.weights import load_weights

_HIDDEN = 64
_PASSES = 30


def token_places(height: int, width: int) -> Float[np.ndarray, "T 2"]:
    """(row, column) of each token of a grid, row-major."""
    return np.stack(np.divmod(np.arange(height * width), width), axis=-1).astype(np.float64)


def chance_error(height: int, width: int) -> float:
    """Error of always answering the centre of a height x width grid: (height^2 + width^2 - 2) / 24."""
    return (height**2 + width**2 - 2) / 24


def probe(outputs: Float[np.ndarray, "B T D"], grid: tuple[int, int], seed: int) -> float:
    """Mean square error, in tokens, of (row, column) read from each token's vector, on images kept from training.

    A perceptron of one hidden layer (scikit-learn) over standardised channels; the last quarter of the images
    tests it. Raises ConfigError for fewer than four images.
    """
    count = len(outputs)
    if count < 4:
        raise ConfigError(f"images={count} are too few for a probe: use 4 or more")
    split = count - count // 4
    places = np.tile(token_places(*grid), (count, 1, 1))
    (x, y), (test_x, test_y) = (
        (outputs[part].reshape(-1, outputs.shape[-1]), places[part].reshape(-1, 2))
        for part in (slice(split), slice(split, None))
    )
    scaler = StandardScaler().fit(x)
    network = MLPRegressor(hidden_layer_sizes=(_HIDDEN,), max_iter=_PASSES, learning_rate_init=2e-3, random_state=seed)
    # One thread, as for the classifier: faster at this size, and the same on any machine.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is fixed on purpose
        network.fit(scaler.transform(x), y)
        return float(np.mean((network.predict(scaler.transform(test_x)) - test_y) ** 2))


def probe_blocks(
    name: str, params: Params, config: Config, height: int, width: int, timestep: int, count: int, seed: int
) -> list[float]:
    """The error after every block of a model, at a size in pixels."""
    grid = height // config.granularity, width // config.granularity
    inputs = noisy_images(config, height, width, count, timestep, seed)
    run = jax.jit(lambda x, t, y: [block.output for block in block_outputs(params, config, x, t, y)])
    outputs = [np.asarray(output, np.float64) for output in run(*inputs)]
    errors = []
    with progress_bar(f"probe {name}", len(outputs), "block") as bar:
        for output in outputs:
            errors.append(probe(output, grid, seed))
            bar.update()
    return errors


def probe_figure(errors: Mapping[str, Sequence[float]], chance: float, path: Path) -> None:
    """Error against the block, a line per model; chance is dashed."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, values in errors.items():
        axes.plot(np.arange(len(values)) + 1, values, "o-", label=name)
    axes.axhline(chance, color="black", linestyle=(0, (1, 2)), label="always the centre")
    axes.set(xlabel="block", ylabel="mean square error of (row, column), in tokens", ylim=(0, None))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def main() -> None:
    models = {name: load_weights(path)[:2] for name, path in _named(_CHECKPOINTS.value).items()}
    first = next(iter(models.values()))[1]
    height, width = _HEIGHT.value or first.data.image_height, _WIDTH.value or first.data.image_width
    settings = height, width, _TIMESTEP.value, _IMAGES.value, _SEED.value
    for _, config in models.values():
        config.latent_shape(height, width)
        if config.granularity != first.granularity:
            raise ConfigError("--checkpoints differ in their patch size: probe them apart")
    errors = {name: probe_blocks(name, params, config, *settings) for name, (params, config) in models.items()}
    chance = chance_error(height // first.granularity, width // first.granularity)
    out = Path(_OUT.value)
    probe_figure(errors, chance, out / "position_probe.png")
    record = {"checkpoints": _CHECKPOINTS.value, "height": height, "width": width, "timestep": _TIMESTEP.value}
    write_json(out / "position_probe.json", record | {"chance": chance, "errors": errors})
    for name, values in errors.items():
        print(f"{name}: " + "  ".join(f"{value:.3f}" for value in values))
    print(f"always the centre: {chance:.3f}; wrote position_probe.png and position_probe.json to {out}")


def _named(items: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    if not pairs or not all(name and path for name, _, path in pairs):
        raise ConfigError(f"--checkpoints={','.join(items)} is not understood: write NAME=CHECKPOINT,NAME=CHECKPOINT")
    return {name: path for name, _, path in pairs}


if __name__ == "__main__":
    _CHECKPOINTS = flags.DEFINE_list("checkpoints", None, "NAME=CHECKPOINT, one or more.")
    _OUT = flags.DEFINE_string("out", None, "Folder for the figure and the numbers.")
    _HEIGHT = flags.DEFINE_integer("height", None, "Pixels. Default: as the first was trained.")
    _WIDTH = flags.DEFINE_integer("width", None, "Like --height.")
    _TIMESTEP = flags.DEFINE_integer("timestep", 999, "Noise level, 0 (none) to 999 (noise alone).")
    _IMAGES = flags.DEFINE_integer("images", 512, "Real images; a quarter of them tests.", lower_bound=4)
    _SEED = flags.DEFINE_integer("seed", 0, "Of the noise and the probe.")
    flags.mark_flags_as_required(["checkpoints", "out"])
    cli.run(main, __doc__)
