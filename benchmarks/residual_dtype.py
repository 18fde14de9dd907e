"""What a float32 residual stream costs beside bfloat16 products, and what it gains.

  python benchmarks/residual_dtype.py

The cost is the TPU compiler's, with no TPU present: bytes and least time of a training step of LEDiT-XL/2 on one v5e
chip, counted as benchmarks/roofline.py does; benchmarks/compile_configs.py has the memory. The gain is the error of the
guided velocity against float32, on the shipped model of digits at the last timestep. Results go to
benchmarks/results/residual_dtype.json; what is there is not measured again.
"""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import Report  # noqa: E402
from benchmarks.roofline import BATCHES, V5E, whole_counts  # noqa: E402
from configs import imagenet256  # noqa: E402
from ledit_jax.config import Config  # noqa: E402
from ledit_jax.diffusion import make_process  # noqa: E402
from ledit_jax.diffusion.guidance import guided  # noqa: E402
from ledit_jax.evaluation.tables import markdown  # noqa: E402
from ledit_jax.flops import PEAK_BF16_FLOPS  # noqa: E402
from ledit_jax.models import make_apply, make_network  # noqa: E402
from ledit_jax.weights import load_weights  # noqa: E402

RESIDUALS = ("same", "float32")
_IMAGES_PER_CLASS = 20


def guided_error(residual: str, cfg_scale: float, timestep: int) -> dict[str, float]:
    """Root mean square of what bfloat16 changes in the guided velocity of assets/digits, over images of every class."""
    params, config, _ = load_weights(ROOT / "assets/digits")
    config = config.for_any_device()
    classes = config.model.num_classes
    labels = jnp.tile(jnp.arange(classes), _IMAGES_PER_CLASS)
    x = jax.random.normal(jax.random.key(0), (len(labels), *config.latent_shape()))

    def velocity(**fields: str) -> np.ndarray:
        model = dataclasses.replace(config.model, **fields)
        changed = dataclasses.replace(config, model=model)
        network = make_network(changed, make_process(changed))
        denoise, null = functools.partial(make_apply(network), params), network.condition.null(len(labels))
        found = jax.jit(guided(denoise, labels, null, cfg_scale, "3"))(x, jnp.full(len(labels), timestep))
        return np.asarray(found, np.float64)

    exact = velocity(dtype="float32", residual_dtype="same", matmul_precision="highest")
    difference = velocity(dtype="bfloat16", residual_dtype=residual) - exact
    return {"rms": float(np.sqrt(np.mean(difference**2))), "images": len(labels)}


def traffic_row(report: Report, side: int, residual: str) -> list[str]:
    """Of a training step on one v5e chip, and the least time that its FLOPs and bytes take there."""
    config = Config.from_dict(imagenet256.get_config().to_dict()).replaced("model", residual_dtype=residual)
    flops, moved = whole_counts(report, config, f"residual {residual}", "train", side, "splash")
    seconds = max(flops / PEAK_BF16_FLOPS["TPU v5e"], moved / V5E)
    return [str(side), str(BATCHES["train"][side]), residual, f"{moved / 1e9:.1f}", f"{1e3 * seconds:.0f}"]


def error_row(report: Report, residual: str) -> list[str]:
    """Of the guided velocity."""
    row = report.get(f"guided velocity residual {residual}", lambda: guided_error(residual, 4.0, 999))
    return [residual, str(row["images"]), f"{row['rms']:.4f}"]


def main() -> None:
    """Measures what is missing, prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/residual_dtype.json", metavar="PATH")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    report = Report(args.json, ("jax", "libtpu"))
    errors = [error_row(report, residual) for residual in RESIDUALS]
    traffic = [traffic_row(report, 256, residual) for residual in RESIDUALS]
    print(markdown(["residual_dtype", "images", "rms error of the guided velocity"], errors), end="\n\n")
    print(markdown(["size", "batch", "residual_dtype", "GB", "least ms"], traffic), end="\n\n")
    print(report.heading())


if __name__ == "__main__":
    main()
