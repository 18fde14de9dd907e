"""Does attention weigh tokens by what they say? The correlation of its weights with the values that they multiply.

  python -m experiments.theory.correlation --checkpoint=assets/digits --out=runs/correlation

The paper's theorem 3.1 takes scores and values as independent, and its appendix B looks at how far that holds. For each
block and timestep: Pearson's correlation of a weight, times the number of tokens that its query sees, with a value's
channel, over images, queries and the keys that they see. It has a sign and a size for each channel; the mean size is
reported, beside that of the same weights with the values of another image: what chance and the places of the tokens
make by themselves. Writes correlation.png and correlation.json. What to average over is our reading of the paper.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx
from jaxtyping import Array, Bool, Float

from experiments.theory.block_outputs import Entrance, block_kinds, enter, noisy_images, parse_timesteps
from ledit_jax import cli
from ledit_jax.config import Config
from ledit_jax.files import check_writable, write_json
from ledit_jax.models import Params
from ledit_jax.models.norm import layer_norm, modulate
from ledit_jax.ops.dense_attention import dense_mask
from ledit_jax.weights import load_weights


@dataclass(frozen=True)
class LayerCorrelation:
    """Of one block at one timestep, over its heads and their channels."""

    layer: int
    kind: str
    """"sa" or "ca"."""
    timestep: int
    mean: float
    """Mean size of the correlation, 0 to 1."""
    largest: float
    other_image: float
    """The mean size with the values of another image in the place of the weights' own."""


def weights_and_values(
    start: Entrance,
) -> list[tuple[Float[Array, "B N T T"], Float[Array, "B T N K"], Bool[Array, "#B 1 T T"]]]:
    """(attention's weights, the values that they multiply, which keys a query sees) of every block."""
    config, context = start.model.config, start.context
    graphdef, params = nnx.split(start.model.blocks)
    shared = start.model.shared_adaln(start.condition) if config.block == "fit" else None
    slopes = start.model.position.bias_scales(config.depth)
    _, (_, outputs) = start.model.run_blocks(start.tokens, start.condition, context, keep=True)
    found = []
    for layer, kind in enumerate(block_kinds(config)):
        block = nnx.merge(graphdef, jax.tree.map(lambda p, layer=layer: p[layer], params))
        shift, scale, *_ = block.modulation(start.condition, shared)
        x = start.tokens if layer == 0 else outputs[layer - 1]
        q, k, v = block.attn.heads(modulate(layer_norm(x, block.eps), shift, scale), context.rotary)
        logits = jnp.einsum("btnk,bsnk->bnts", q, k, precision="highest") * context.logit_scale / q.shape[-1] ** 0.5
        if context.bias is not None:
            logits = logits + context.bias * slopes[layer]
        seen = dense_mask(config.scan if kind == "ca" else "none", context.grid, context.causal)
        seen = jnp.ones((1, 1, *logits.shape[2:]), bool) if seen is None else seen
        found.append((jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1), v, seen))
    return found


def correlations(
    weights: Float[Array, "B N T T"], values: Float[Array, "B T N K"], seen: Bool[Array, "#B 1 T T"]
) -> Float[Array, "N K"]:
    """Pearson's correlation of each head's weights with each of its channels, over the pairs that are seen.

    A weight is taken times the number of keys that its query sees, or it would fall with that number alone. The mean
    is then 1, whatever the query.
    """
    seen = jnp.broadcast_to(seen, (len(weights), 1, *weights.shape[2:]))
    w = jnp.where(seen, weights * seen.sum(axis=-1, keepdims=True) - 1, 0)
    times = seen.sum(axis=2)[:, 0, :, None, None]  # that a key is seen
    v = values - (times * values).sum(axis=(0, 1)) / times.sum()
    shared = jnp.einsum("bnts,bsnk->nk", w, v, precision="highest")
    spread = jnp.square(w).sum(axis=(0, 2, 3))[:, None] * (times * jnp.square(v)).sum(axis=(0, 1))
    return shared / jnp.sqrt(jnp.maximum(spread, 1e-20))


def measure_correlation(
    params: Params, config: Config, height: int, width: int, timesteps: Sequence[int], count: int, seed: int
) -> list[LayerCorrelation]:
    """Every block at every timestep, on `count` real images of a size with noise added; errors as `noisy_images`."""

    @jax.jit
    def run(x, t, y):
        layers = weights_and_values(enter(params, config, x, t, y))
        return [(correlations(w, v, m), correlations(w, jnp.roll(v, 1, axis=0), m)) for w, v, m in layers]

    kinds, results = block_kinds(config.model), []
    for timestep in timesteps:
        for layer, pair in enumerate(run(*noisy_images(config, height, width, count, timestep, seed))):
            own, others = (np.abs(np.asarray(found, np.float64)) for found in pair)
            figures = float(own.mean()), float(own.max()), float(others.mean())
            results.append(LayerCorrelation(layer, kinds[layer], timestep, *figures))
    return results


def correlation_figure(results: Sequence[LayerCorrelation], path: Path) -> None:
    """Mean size against the block, a line per timestep, dashed for another image's values; causal blocks filled."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for index, timestep in enumerate(dict.fromkeys(r.timestep for r in results)):
        layers = [r for r in results if r.timestep == timestep]
        blocks = [r.layer + 1 for r in layers]
        axes.plot(blocks, [r.mean for r in layers], "-", color=f"C{index}", label=f"timestep {timestep}")
        axes.plot(blocks, [r.other_image for r in layers], "--", color=f"C{index}", linewidth=1)
        for r in layers:
            face = f"C{index}" if r.kind == "ca" else "white"
            axes.plot(r.layer + 1, r.mean, "o", color=f"C{index}", markerfacecolor=face)
    axes.set(xlabel="block (causal ones filled)", ylabel="mean size of the correlation", ylim=(0, None))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def main() -> None:
    out = Path(_OUT.value)
    check_writable(out / "correlation.json")  # before what takes minutes
    params, config, step = load_weights(_CHECKPOINT.value)
    height, width = _HEIGHT.value or config.data.image_height, _WIDTH.value or config.data.image_width
    timesteps = parse_timesteps(_TIMESTEPS.value)
    results = measure_correlation(params, config, height, width, timesteps, _IMAGES.value, _SEED.value)
    correlation_figure(results, out / "correlation.png")
    record = {"checkpoint": _CHECKPOINT.value, "step": step, "height": height, "width": width}
    write_json(out / "correlation.json", record | {"layers": [asdict(r) for r in results]})
    for r in results:
        print(
            f"timestep {r.timestep:4}  block {r.layer + 1:2} {r.kind}  mean {r.mean:.3f}  largest {r.largest:.3f}  "
            f"other image {r.other_image:.3f}"
        )
    print(f"wrote correlation.png and correlation.json to {out}")


if __name__ == "__main__":
    _CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of train.py, or a checkpoint folder.")
    _OUT = flags.DEFINE_string("out", None, "Folder for the figure and the numbers.")
    _HEIGHT = flags.DEFINE_integer("height", None, "Pixels. Default: as trained.")
    _WIDTH = flags.DEFINE_integer("width", None, "Like --height.")
    _TIMESTEPS = flags.DEFINE_list("timesteps", "999,500,100", "Noise levels, 0 (none) to 999 (noise alone).")
    _IMAGES = flags.DEFINE_integer("images", 256, "Real images.", lower_bound=2)
    _SEED = flags.DEFINE_integer("seed", 0, "Of the noise.")
    cli.require("checkpoint", "out")
    cli.run(main, __doc__)
