"""Memory of decoding one image with Stable Diffusion's autoencoder on one TPU chip, whole and in slices.

  python benchmarks/decoder_memory.py                  compiles what is missing, prints the table
  python benchmarks/decoder_memory.py --only=2048      one size
  python benchmarks/decoder_memory.py --difference     decodes random latents both ways on this machine

The decoder is compiled as `sample.py --compile_only` does it, with no TPU present: memory and times are the compiler's
and predicted from its estimates. Each row is kept in benchmarks/results/decoder_memory.json as soon as it is there. The
difference is that of a decoder of a quarter of the widths, with random weights, at 512x512, in slices of 32 rows.
"""

import argparse
import functools
import math
import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import Report  # noqa: E402
from configs import imagenet256  # noqa: E402
from ledit_jax.compile_only.programs import report_decoder  # noqa: E402
from ledit_jax.evaluation.tables import markdown  # noqa: E402
from ledit_jax.models import vae_slices  # noqa: E402
from ledit_jax.models.vae import AutoencoderKL, VAEConfig  # noqa: E402

RESULTS = ROOT / "benchmarks/results/decoder_memory.json"
CHIP = "v5e:1x1"
ROWS = {"512 whole": 15, "2048 whole": 15, "2048 in slices": 8}
"""GiB that an image may take, by side in pixels and how it is then decoded."""


def compile_row(name: str) -> dict:
    """What decoding needs there: GiB, TFLOPs as compiled, predicted milliseconds."""
    side = int(name.split()[0])
    report = report_decoder(imagenet256.experiment(), CHIP, side, side, 1, ROWS[name])
    found = {"program": report.program, "fits": report.fits, "needs_gib": round(report.needed_bytes / 2**30, 2)}
    found |= {"has_gib": round(report.capacity_bytes / 2**30, 2), "tflops": round(report.compiled_flops / 1e12, 2)}
    if report.memory:
        found["temporaries_gib"] = round(report.memory.temporaries / 2**30, 2)
        found["predicted_ms"] = round(report.predicted.compute, 1)
    return found


def table_row(name: str, row: dict) -> list[str]:
    """A row of the table."""
    side, how = name.split(" ", 1)
    needs = f"{row['needs_gib']:.2f} of {row['has_gib']:.2f} GiB"
    scratch = f"{row['temporaries_gib']:.2f} GiB" if "temporaries_gib" in row else "-"
    time = f"{row['predicted_ms']:,.0f} ms" if "predicted_ms" in row else "-"
    return [f"{side}x{side}", how, needs, scratch, f"{row['tflops']:.2f}", time, "yes" if row["fits"] else "no"]


def largest_difference() -> float:
    """Between an image decoded whole and in slices, every level but the first, over the image's standard deviation."""
    config = VAEConfig(block_out_channels=(32, 64, 128, 128))
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: AutoencoderKL(config, nnx.Rngs(0))), nnx.Param)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: (rng.normal(size=a.shape) * math.prod(a.shape[:-1]) ** -0.5).astype(np.float32), shapes
    )
    latents = rng.normal(size=(1, 64, 64, 4)).astype(np.float32)
    vae_slices._ROWS = 32

    @functools.partial(jax.jit, static_argnums=2)
    def decode(params, latents, sliced):
        return vae_slices.decode_by_image(nnx.merge(graphdef, params), latents, sliced)

    whole, sliced = decode(params, latents, 0), decode(params, latents, 3)
    return float(np.abs(whole - sliced).max() / np.std(whole))


def main() -> None:
    """Compiles what is missing and prints the table, or the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="a side in pixels; may be repeated (default: all)")
    parser.add_argument("--difference", action="store_true", help="measure the difference instead")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="PATH")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    report, rows = Report(args.json, ("jax", "libtpu")), []
    if args.difference:
        print(report.get("difference", lambda: {"over_deviation": largest_difference()}))
        return
    for name in ROWS:
        if name.split()[0] in (args.only or [name.split()[0]]):
            report.get(name, functools.partial(compile_row, name))
        if name in report.results:
            rows.append(table_row(name, report.results[name]))
    header = ["image", "decoded", f"HBM of {CHIP}", "of it temporaries", "TFLOPs", "predicted", "fits"]
    print(f"{markdown(header, rows)}\n\n{report.heading()}")


if __name__ == "__main__":
    main()
