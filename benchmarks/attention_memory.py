"""Memory of a denoising step at high resolution, with dense and with splash attention, on one TPU chip.

  python benchmarks/attention_memory.py                          LEDiT-XL/2, v5e and v6e, 256 to 16,384 tokens
  python benchmarks/attention_memory.py --model=LEDiT-S/2 --tokens=256 --tokens=1024 --chip=v5e      a quick look

The step is the pipeline's own: bfloat16, scan d, two pictures with guidance, so four in the network. It is compiled by
the TPU compiler in the package libtpu and not run: no TPU is needed, and every figure is the compiler's. Each one is
written to --json as soon as it is there; started again, the command goes on with what is missing. Prints Markdown.
"""

import argparse
import dataclasses
import functools
import math
import re
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import Report  # noqa: E402
from benchmarks.tpu_topology import place, tpu_mesh  # noqa: E402
from configs import imagenet256  # noqa: E402
from ledit_jax.config import Config  # noqa: E402
from ledit_jax.diffusion.samplers import make_sampler, sample_keys  # noqa: E402
from ledit_jax.diffusion.step import make_sample_step  # noqa: E402
from ledit_jax.models.functional import abstract_params, make_apply  # noqa: E402

CHIPS = {"v5e": 16, "v6e": 32}  # HBM in GB, from the data sheets
TOKENS = (256, 1024, 4096, 9216, 16384)
BACKENDS = {"xla": "dense", "splash": "splash"}
BATCH = 2


def compile_step(model: str, chip: str, num_tokens: int, backend: str) -> dict[str, float]:
    """GB of arguments, results and scratch memory, and seconds to compile; `needs` alone if it does not fit."""
    config = Config.from_dict(imagenet256.get_config(model).to_dict())
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, attention=backend))
    side = math.isqrt(num_tokens) * config.granularity
    sampler = make_sampler("ddpm", 250, diffusion=config.diffusion, clip_denoised=False)
    step_fn = make_sample_step(make_apply(config), sampler, config.model.num_classes, "3", "plain")
    step = jax.jit(step_fn, static_argnums=7, donate_argnums=1)
    mesh = tpu_mesh(f"{chip}:1x1")
    state = jax.ShapeDtypeStruct((BATCH, *config.latent_shape(side, side)), jnp.float32)
    keys = jax.eval_shape(lambda: sample_keys(0, jnp.arange(BATCH)))
    labels, scalar = jax.ShapeDtypeStruct((BATCH,), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    arguments = place((abstract_params(config), state, count, keys, labels, scalar, scalar), NamedSharding(mesh, P()))
    start = time.perf_counter()
    try:
        with jax.set_mesh(mesh):
            memory = step.lower(*arguments, True).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        needs = re.search(r"(?:Used|temporaries) \(?([\d.]+)([GM])\)? (?:of|exceeds)", str(error))
        if not needs:
            raise
        return {"needs": float(needs[1]) * (2**30 if needs[2] == "G" else 2**20) / 1e9}
    result = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "arguments": memory.argument_size_in_bytes / 1e9,
        "results": result / 1e9,
        "scratch": memory.temp_size_in_bytes / 1e9,
        "seconds": time.perf_counter() - start,
    }


def total(row: dict[str, float]) -> float:
    """GB in all."""
    return row["needs"] if "needs" in row else row["arguments"] + row["results"] + row["scratch"]


def markdown(rows: dict[tuple, dict[str, float]], model: str, chip: str, tokens: list[int]) -> str:
    """The table of a chip: tokens, picture, and per backend the total and of it the scratch memory."""
    lines = [
        f"| tokens | picture | dense: total (scratch), GB | splash: total (scratch), GB | {model} on one {chip} |",
        "|---|---|---|---|---|",
    ]
    for count in tokens:
        cells = []
        for backend in BACKENDS:
            row = rows[chip, count, backend]
            scratch = f" ({row['scratch']:.2f})" if "scratch" in row else ", does not fit"
            cells.append(f"{total(row):.2f}{scratch}")
        side = math.isqrt(count) * 16
        ratio = total(rows[chip, count, "xla"]) / total(rows[chip, count, "splash"])
        lines.append(f"| {count:,} | {side}x{side} | {' | '.join(cells)} | dense takes {ratio:.1f}x |")
    return "\n".join(lines)


def main() -> None:
    """Compiles what is missing, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="LEDiT-XL/2", help="a preset with patch size 2 (default: LEDiT-XL/2)")
    parser.add_argument("--chip", choices=CHIPS, action="append", help="may be repeated (default: both)")
    parser.add_argument(
        "--tokens", type=int, action="append", help=f"a square number; may be repeated (default: {TOKENS})"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/attention_memory.json", metavar="PATH")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    chips, tokens = args.chip or list(CHIPS), args.tokens or list(TOKENS)
    for count in tokens:
        if math.isqrt(count) ** 2 != count:
            parser.error(f"--tokens={count} is not a square: use {math.isqrt(count) ** 2}")
    report = Report(args.json, ("jax", "libtpu"))
    rows = {
        (chip, count, backend): report.get(
            f"{args.model} {chip} {count} {backend}", functools.partial(compile_step, args.model, chip, count, backend)
        )
        for chip in chips
        for count in tokens
        for backend in BACKENDS
    }
    for chip in chips:
        print(f"\n{markdown(rows, args.model, chip, tokens)}")
    print(f"\n{report.heading()}")


if __name__ == "__main__":
    main()
