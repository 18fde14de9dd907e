"""How the variance of causal attention's output falls with position, for a trained model, against C / (i + 1).

  python -m experiments.theory.variance --checkpoint=assets/digits --out=runs/variance

The paper's theorem 3.1 says that a token which attends to i tokens has an output of variance about C / (i + 1), so
that the network can tell from it where it is. --height and --width look at another size, --timesteps at others. Writes
variance.png, with a panel for each timestep and a line for each causal layer, and variance.json.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np
from absl import flags
from jaxtyping import Float, Integer

from experiments.theory.block_outputs import block_kinds, block_outputs, noisy_images, parse_timesteps
from ledit_jax import cli
from ledit_jax.config import Config
from ledit_jax.errors import ConfigError
from ledit_jax.files import check_writable, write_json
from ledit_jax.models import Params
from ledit_jax.ops.scan_masks import scan_mask
from ledit_jax.weights import load_weights


@dataclass(frozen=True)
class LayerVariance:
    """The variance of one causal layer's output at one timestep."""

    layer: int
    timestep: int
    variance: list[float]
    """Of each token, row-major: over channels, then the mean over images."""
    constant: float
    """C of the curve C / (i + 1) that is nearest in the logarithm, i being the number of tokens attended to."""
    correlation: float
    """Of log variance with log 1 / (i + 1) over the tokens, -1 to 1; 1 is the theorem's law up to its exponent."""
    slope: float
    """Of log variance against log 1 / (i + 1): 1 is the theorem's law, 0 no dependence on the position."""


def theorem_variance(count: int, mean: float, std: float) -> float:
    """(2 s^2 + m^2 (i - 1) / i) / (i + 1) for i = `count` tokens (LEDiT, theorem 3.1), m and s of the values.

    It is the sum of the variances of the terms w_j v_j, where the exponentials of the scores are exponentially
    distributed and independent. The terms of one softmax are correlated, as their weights sum to one, and their
    sum then has exactly 2 s^2 / (i + 1), whatever m is; both fall as C / (i + 1).
    """
    return (2 * std**2 + mean**2 * (count - 1) / count) / (count + 1)


def attended(scan: str, height: int, width: int) -> Integer[np.ndarray, " T"]:
    """Number of tokens that each token of a height x width grid attends to, itself included."""
    return scan_mask(scan, height, width).sum(axis=1)


def fit_law(variance: Float[np.ndarray, " T"], counts: Integer[np.ndarray, " T"]) -> tuple[float, float, float]:
    """(C, correlation, slope) of variances against 1 / (count + 1), in logarithms; see LayerVariance."""
    x, y = -np.log(counts + 1.0), np.log(variance)
    slope = np.cov(x, y)[0, 1] / np.var(x, ddof=1)
    return float(np.exp(np.mean(y - x))), float(np.corrcoef(x, y)[0, 1]), float(slope)


def measure_variance(
    params: Params, config: Config, height: int, width: int, timesteps: Sequence[int], count: int, seed: int
) -> list[LayerVariance]:
    """Every causal layer at every timestep, on `count` real images of a size with noise added.

    Raises ConfigError for a model without causal attention, and as `noisy_images` does.
    """
    rows, columns = (side // config.granularity for side in (height, width))
    counts = attended(config.model.scan, rows, columns)
    if config.model.block_order == "sa" or len(set(counts.tolist())) == 1:
        raise ConfigError(
            f"model.block_order={config.model.block_order}, model.scan={config.model.scan}: every token attends to as "
            "many as every other; give a checkpoint with causal attention"
        )
    run = jax.jit(lambda x, t, y: [block.mixed for block in block_outputs(params, config, x, t, y)])
    results = []
    for timestep in timesteps:
        mixed = run(*noisy_images(config, height, width, count, timestep, seed))
        for layer, kind in enumerate(block_kinds(config.model)):
            if kind == "ca":
                variance = np.asarray(mixed[layer], np.float64).var(axis=-1).mean(axis=0)
                results.append(LayerVariance(layer, timestep, variance.tolist(), *fit_law(variance, counts)))
    return results


def variance_figure(results: Sequence[LayerVariance], counts: Integer[np.ndarray, " T"], path: Path) -> None:
    """Variance against the tokens attended to: a panel per timestep, a colour per layer, C / (i + 1) dashed."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    timesteps = list(dict.fromkeys(r.timestep for r in results))
    figure = Figure(figsize=(4.5 * len(timesteps), 4.2), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(timesteps), sharey=True, squeeze=False)[0]
    grid = np.geomspace(counts.min(), counts.max(), 100)
    for axes, timestep in zip(panels, timesteps, strict=True):
        for index, r in enumerate(r for r in results if r.timestep == timestep):
            color = f"C{index}"
            axes.plot(counts, r.variance, "o", color=color, markersize=4, label=f"block {r.layer + 1}")
            axes.plot(grid, r.constant / (grid + 1), "--", color=color, linewidth=1)
        axes.set(title=f"timestep {timestep}", xlabel="tokens attended to, i", xscale="log", yscale="log")
        axes.grid(which="both", color="#e4e4e4", linewidth=0.6)
    panels[0].set_ylabel("variance of attention's output")
    panels[-1].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def main() -> None:
    out = Path(_OUT.value)
    check_writable(out / "variance.json")  # before what takes minutes
    params, config, step = load_weights(_CHECKPOINT.value)
    height, width = _HEIGHT.value or config.data.image_height, _WIDTH.value or config.data.image_width
    timesteps = parse_timesteps(_TIMESTEPS.value)
    results = measure_variance(params, config, height, width, timesteps, _IMAGES.value, _SEED.value)
    counts = attended(config.model.scan, height // config.granularity, width // config.granularity)
    variance_figure(results, counts, out / "variance.png")
    record = {
        "checkpoint": _CHECKPOINT.value,
        "step": step,
        "height": height,
        "width": width,
        "scan": config.model.scan,
        "attended": counts.tolist(),
        "layers": [asdict(r) for r in results],
    }
    write_json(out / "variance.json", record)
    for r in results:
        print(f"timestep {r.timestep:4}  block {r.layer + 1:2}  slope {r.slope:5.2f}  correlation {r.correlation:5.2f}")
    print(f"a slope of 1 is C / (i + 1); wrote variance.png and variance.json to {out}")


if __name__ == "__main__":
    _CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of train.py, or a checkpoint folder.")
    _OUT = flags.DEFINE_string("out", None, "Folder for the figure and the numbers.")
    _HEIGHT = flags.DEFINE_integer("height", None, "Pixels. Default: as trained.")
    _WIDTH = flags.DEFINE_integer("width", None, "Like --height.")
    _TIMESTEPS = flags.DEFINE_list("timesteps", "999,500,100", "Noise levels, 0 (none) to 999 (noise alone).")
    _IMAGES = flags.DEFINE_integer("images", 256, "Real images to average over.", lower_bound=2)
    _SEED = flags.DEFINE_integer("seed", 0, "Of the noise.")
    cli.require("checkpoint", "out")
    cli.run(main, __doc__)
