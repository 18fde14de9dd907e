"""Does a network know where its tokens are? A small regression of their place from the output of each block.

  python -m experiments.theory.position_probe --checkpoints=NoPE=runs/study/weights/nope/seed-0,LEDiT=assets/digits \\
      --out=runs/probe

The images are real ones, at each of --timesteps; the default, 999, is noise alone, so that nothing shown tells the
place. --timesteps=999,750,500,250,0 goes along the denoising (Table 5 of the paper). The error is the mean square of
row and column, in tokens; who always answers the centre has (h^2 + w^2 - 2) / 24. With --place=index it is that of the
index in reading order, in one dimension, and the centre has (T^2 - 1) / 12 for T tokens. --inside leaves out the tokens
at the border: a convolution's zero padding tells those where they are, and no others. Writes position_probe.png, with a
panel for each timestep, and position_probe.json.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags
from jaxtyping import Bool, Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from experiments.theory import border
from experiments.theory.block_outputs import block_outputs, noisy_images, parse_timesteps
from ledit_jax import cli
from ledit_jax.config import Config
from ledit_jax.errors import ConfigError
from ledit_jax.files import check_writable, write_json
from ledit_jax.models import Params
from ledit_jax.progress import progress_bar
from ledit_jax.weights import load_weights

_HIDDEN = 64
_PASSES = 30

Errors = dict[str, dict[int, list[float]]]
"""Name of the model -> timestep -> the error after each block."""


def token_places(height: int, width: int, place: str = "cell") -> Float[np.ndarray, "T axes"]:
    """(row, column) of each token of a grid, row-major; for place="index" how many come before it, one number."""
    index = np.arange(height * width)
    axes = np.divmod(index, width) if place == "cell" else (index,)
    return np.stack(axes, axis=-1).astype(np.float64)


def tokens_read(height: int, width: int, inside: bool) -> Bool[np.ndarray, " T"]:
    """Which tokens of a grid are read, row-major: all, or those that do not lie at its border.

    Raises ConfigError for a grid that has none inside.
    """
    return border.inside(height, width).ravel() if inside else np.ones(height * width, bool)


def chance_error(height: int, width: int, place: str = "cell", inside: bool = False) -> float:
    """Error of always answering the centre of a grid: (height^2 + width^2 - 2) / 24, for the index (T^2 - 1) / 12."""
    return float(token_places(height, width, place)[tokens_read(height, width, inside)].var(axis=0).mean())


def probe(
    outputs: Float[np.ndarray, "B T D"], grid: tuple[int, int], seed: int, place: str = "cell", inside: bool = False
) -> float:
    """Mean square error, in tokens, of a token's place read from its vector, on images kept from training.

    inside: whether tokens at the border are left out, in training the probe and in the error.
    A perceptron of one hidden layer (scikit-learn) over standardised channels; the last quarter of the images
    tests it. Raises ConfigError for fewer than four images.
    """
    count = len(outputs)
    if count < 4:
        raise ConfigError(f"images={count} are too few for a probe: use 4 or more")
    split = count - count // 4
    # The index of a large grid runs far: in rows, so few passes reach it.
    unit = grid[1] if place == "index" else 1
    shown = tokens_read(*grid, inside)
    outputs, places = outputs[:, shown], np.tile(token_places(*grid, place)[shown] / unit, (count, 1, 1))
    (x, y), (test_x, test_y) = (
        (outputs[part].reshape(-1, outputs.shape[-1]), places[part].reshape(-1, places.shape[-1]))
        for part in (slice(split), slice(split, None))
    )
    scaler = StandardScaler().fit(x)
    network = MLPRegressor(hidden_layer_sizes=(_HIDDEN,), max_iter=_PASSES, learning_rate_init=2e-3, random_state=seed)
    # One thread, as for the classifier: faster at this size, and the same on any machine.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is fixed on purpose
        network.fit(scaler.transform(x), y.squeeze())
        found = network.predict(scaler.transform(test_x)).reshape(test_y.shape)
    return float(np.mean((found - test_y) ** 2)) * unit**2


def probe_blocks(
    name: str,
    params: Params,
    config: Config,
    height: int,
    width: int,
    timesteps: Sequence[int],
    place: str,
    inside: bool,
    count: int,
    seed: int,
) -> dict[int, list[float]]:
    """The errors after every block of a model at each timestep, at a size in pixels."""
    grid = height // config.granularity, width // config.granularity
    run = jax.jit(lambda x, t, y: [block.output for block in block_outputs(params, config, x, t, y)])
    errors = {timestep: [] for timestep in timesteps}
    with progress_bar(f"probe {name}", len(errors) * config.model.depth, "block") as bar:
        for timestep in errors:
            for output in run(*noisy_images(config, height, width, count, timestep, seed)):
                errors[timestep].append(probe(np.asarray(output, np.float64), grid, seed, place, inside))
                bar.update()
    return errors


def probe_figure(errors: Errors, chance: float, place: str, path: Path) -> None:
    """Error against the block: a panel per timestep, a line per model; chance is dashed."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    timesteps = list(next(iter(errors.values())))
    figure = Figure(figsize=(7 if len(timesteps) == 1 else 3.4 * len(timesteps), 4.2), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(timesteps), sharey=True, squeeze=False)[0]
    for axes, timestep in zip(panels, timesteps, strict=True):
        for name, values in errors.items():
            axes.plot(np.arange(len(values[timestep])) + 1, values[timestep], "o-", label=name)
        axes.axhline(chance, color="black", linestyle=(0, (1, 2)), label="always the centre")
        axes.set(title=f"timestep {timestep}", xlabel="block", ylim=(0, None))
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    what = "(row, column)" if place == "cell" else "the index"
    panels[0].set_ylabel(f"mean square error of {what}, in tokens")
    panels[-1].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def main() -> None:
    out = Path(_OUT.value)
    check_writable(out / "position_probe.json")  # before what takes minutes
    models = {name: load_weights(path)[:2] for name, path in _named(_CHECKPOINTS.value).items()}
    first = next(iter(models.values()))[1]
    height, width = _HEIGHT.value or first.data.image_height, _WIDTH.value or first.data.image_width
    timesteps, place = parse_timesteps(_TIMESTEPS.value), _PLACE.value
    grid, inside = (height // first.granularity, width // first.granularity), _INSIDE.value
    tokens_read(*grid, inside)
    settings = height, width, timesteps, place, inside, _IMAGES.value, _SEED.value
    for _, config in models.values():
        config.latent_shape(height, width)
        if config.granularity != first.granularity:
            raise ConfigError("--checkpoints differ in their patch size: probe them apart")
    errors = {name: probe_blocks(name, params, config, *settings) for name, (params, config) in models.items()}
    chance = chance_error(*grid, place, inside)
    probe_figure(errors, chance, place, out / "position_probe.png")
    record = {"checkpoints": _CHECKPOINTS.value, "height": height, "width": width, "place": place, "inside": inside}
    write_json(out / "position_probe.json", record | {"chance": chance, "errors": errors})
    for name, found in errors.items():
        for timestep, values in found.items():
            print(f"{name}, timestep {timestep}: " + "  ".join(f"{value:.3f}" for value in values))
    print(f"always the centre: {chance:.3f}; wrote position_probe.png and position_probe.json to {out}")


def _named(items: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    if not pairs or not all(name and path for name, _, path in pairs):
        raise ConfigError(f"--checkpoints={','.join(items)} is not understood: write NAME=CHECKPOINT,NAME=CHECKPOINT")
    named = {name: path for name, _, path in pairs}
    if len(named) < len(pairs):
        raise ConfigError(f"--checkpoints={','.join(items)} has a name twice: give each its own")
    return named


if __name__ == "__main__":
    _CHECKPOINTS = flags.DEFINE_list("checkpoints", None, "NAME=CHECKPOINT, one or more.")
    _OUT = flags.DEFINE_string("out", None, "Folder for the figure and the numbers.")
    _HEIGHT = flags.DEFINE_integer("height", None, "Pixels. Default: as the first was trained.")
    _WIDTH = flags.DEFINE_integer("width", None, "Like --height.")
    _TIMESTEPS = flags.DEFINE_list(
        "timesteps", "999", "Noise levels, 0 (none) to 999 (noise alone); of a flow, thousandths of its time."
    )
    _PLACE = flags.DEFINE_enum(
        "place", "cell", ["cell", "index"], "What is read: (row, column), or the index in reading order."
    )
    _INSIDE = flags.DEFINE_bool("inside", False, "Whether to leave out the tokens at the border.")
    _IMAGES = flags.DEFINE_integer("images", 512, "Real images; a quarter of them tests.", lower_bound=4)
    _SEED = flags.DEFINE_integer("seed", 0, "Of the noise and the probe.")
    cli.require("checkpoints", "out")
    cli.run(main, __doc__)
