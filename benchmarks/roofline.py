"""How fast a step can be on a chip, and how much more than that the compiled program does.

  python benchmarks/roofline.py         LEDiT-XL/2 at 256, 512 and 1024: two tables

The floor is counted from the config: every matrix product once, every weight and every operand of a product once
through memory. The compiled program is counted by the TPU compiler in the package libtpu for one v5e chip; nothing is
run and no TPU is needed. It counts the body of a loop once and a kernel's FLOPs not at all, so the layers are unrolled,
at depths 2 and 4 whose difference is two layers, and the products of splash attention are added from the formula.
"""

import argparse
import dataclasses
import functools
import sys
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
from ledit_jax.flops import PEAK_BF16_FLOPS, forward_flops  # noqa: E402
from ledit_jax.models.functional import abstract_params, count_params, make_apply  # noqa: E402
from ledit_jax.training.program import TrainProgram  # noqa: E402

BANDWIDTH = {"TPU v5e": 819e9, "TPU v5p": 2765e9, "TPU v6e": 1640e9, "NVIDIA H100 80GB HBM3": 3350e9}
"""Bytes/s of memory, from the makers' data sheets."""
SIDES = (256, 512, 1024)
BATCHES = {"train": 16, "sample": 8}
_HALF, _FULL = 2, 4  # bytes of bfloat16 and float32


def attention_flops(config: Config, num_tokens: int) -> int:
    """Of these, the T x T products of one layer."""
    return 4 * num_tokens**2 * config.model.width


def floor(config: Config, task: str, side: int, batch: int) -> tuple[float, float]:
    """(FLOPs, bytes) that a step needs at least.

    Bytes of a forward pass: each float32 weight once, and for each token and layer the operands and results of the
    products in bfloat16: 20 D numbers with an MLP of 4 D and attention that keeps its logits to itself. Training
    passes three times over the activations, and over the weights for forward, backward, gradient (written and read)
    and AdamW with an EMA (four numbers read and written). A guided sampling step has twice the batch in the network.
    """
    num_params = count_params(abstract_params(config))
    T, D, L = config.num_tokens(side, side), config.model.width, config.model.depth
    activations = T * L * 20 * D * _HALF
    if task == "train":
        return 3 * batch * forward_flops(config, side, side), 3 * batch * activations + 12 * _FULL * num_params
    return 2 * batch * forward_flops(config, side, side), 2 * batch * activations + _FULL * num_params


def compiled_counts(config: Config, task: str, side: int, batch: int, backend: str, depth: int) -> dict[str, float]:
    """FLOPs and bytes of the program for one v5e chip at this depth, as the compiler counts them."""
    model = dataclasses.replace(config.model, attention=backend, depth=depth, scan_layers=False)
    data = dataclasses.replace(config.data, image_height=side, image_width=side)
    train = dataclasses.replace(config.train, batch_size=batch)
    config = dataclasses.replace(config, model=model, data=data, train=train)
    mesh = tpu_mesh("v5e:1x1")
    with jax.set_mesh(mesh):
        if task == "train":
            program = TrainProgram(config, mesh)
            lowered = program.step.lower(*program.abstract_arguments(), 1)
        else:
            lowered = _lower_sample_step(config, mesh, batch)
        counts = lowered.compile().cost_analysis()
    return {"flops": counts["flops"], "bytes": counts["bytes accessed"]}


def _lower_sample_step(config: Config, mesh, batch: int):
    sampler = make_sampler("ddpm", 250, diffusion=config.diffusion, clip_denoised=False)
    step = make_sample_step(make_apply(config), sampler, config.model.num_classes, "3", "plain")
    scalar, count = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    state = jax.ShapeDtypeStruct((batch, *config.latent_shape()), jnp.float32)
    keys = jax.eval_shape(lambda: sample_keys(0, jnp.arange(batch)))
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    arguments = (abstract_params(config), state, count, keys, labels, scalar, scalar)
    return jax.jit(step, static_argnums=7).lower(*place(arguments, NamedSharding(mesh, P())), True)


def whole_counts(report: Report, config: Config, name: str, task: str, side: int, backend: str) -> tuple[float, float]:
    """(FLOPs, bytes) of the program at full depth: two depths counted, the rest by the straight line through them."""
    batch = BATCHES[task]
    two, four = (
        report.get(
            f"{name} {task} {side} batch {batch} {backend} depth {depth}",
            functools.partial(compiled_counts, config, task, side, batch, backend, depth),
        )
        for depth in (2, 4)
    )
    layers = config.model.depth
    flops, moved = (two[key] + (layers - 2) * (four[key] - two[key]) / 2 for key in ("flops", "bytes"))
    if backend == "splash":
        # Backward, the kernel multiplies five times where forward it does twice; with remat forward runs again.
        passes = batch * (1 + 1 + 2.5) if task == "train" else 2 * batch
        flops += passes * layers * attention_flops(config, config.num_tokens(side, side))
    return flops, moved


def tables(report: Report, name: str) -> str:
    """Markdown: the floors with each chip's limit, then the compiled counts over the floor."""
    config = Config.from_dict(imagenet256.get_config(name).to_dict())
    limits = [
        "| step | batch | TFLOPs | GB | FLOPs/byte | "
        + " | ".join(f"{chip.split()[1]}: images/s" for chip in BANDWIDTH)
        + " |",
        "|---" * (5 + len(BANDWIDTH)) + "|",
    ]
    excess = ["| step | batch | attention | FLOPs over the floor | bytes over the floor |", "|---" * 5 + "|"]
    for task, batch in BATCHES.items():
        for side in SIDES:
            flops, moved = floor(config, task, side, batch)
            rates = [_rate(batch, flops, moved, PEAK_BF16_FLOPS[chip], speed) for chip, speed in BANDWIDTH.items()]
            head = f"| {task} at {side} | {batch} |"
            limits.append(
                f"{head} {flops / 1e12:.1f} | {moved / 1e9:.1f} | {flops / moved:.0f} | {' | '.join(rates)} |"
            )
            for backend in ("xla", "splash"):
                counts = whole_counts(report, config, name, task, side, backend)
                excess.append(f"{head} {backend} | {counts[0] / flops:.2f}x | {counts[1] / moved:.1f}x |")
    return "\n".join([*limits, "", *excess, "", report.heading()])


def _rate(batch: int, flops: float, moved: float, peak: float, bandwidth: float) -> str:
    seconds = max(flops / peak, moved / bandwidth)
    return f"{batch / seconds:.1f}, {'compute' if flops / peak >= moved / bandwidth else 'memory'}"


def main() -> None:
    """Compiles what is missing, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="LEDiT-XL/2", help="a preset (default: LEDiT-XL/2)")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/roofline.json", metavar="PATH")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    print(tables(Report(args.json, ("jax", "libtpu")), args.model))


if __name__ == "__main__":
    main()
