"""How fast a step can be on a chip, and how much more than that the compiled program does.

  python benchmarks/roofline.py                   LEDiT-XL/2 at 256, 512 and 1024: two tables
  python benchmarks/roofline.py --task=sample     sampling alone: a training step takes minutes to compile

The floor is counted from the config: every matrix product once, every weight and every operand of a product once
through memory. The compiled program is counted by the TPU compiler in the package libtpu for one v5e chip; nothing is
run and no TPU is needed. It counts the bytes of a loop's body once, so the layers are unrolled, at depths 2 and 4 whose
difference is two layers. The products inside a kernel it cannot see: those of splash attention come from the formula.
"""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import Report  # noqa: E402
from configs import imagenet256  # noqa: E402
from ledit_jax.compile_only.counts import count_flops  # noqa: E402
from ledit_jax.compile_only.hlo import Program  # noqa: E402
from ledit_jax.compile_only.programs import denoising_program  # noqa: E402
from ledit_jax.compile_only.topology import GENERATIONS, describe_devices, parse_topology  # noqa: E402
from ledit_jax.config import Config, MeshConfig  # noqa: E402
from ledit_jax.diffusion import make_process  # noqa: E402
from ledit_jax.evaluation.tables import markdown  # noqa: E402
from ledit_jax.flops import PEAK_BF16_FLOPS, forward_flops  # noqa: E402
from ledit_jax.models import abstract_params, count_params, make_network  # noqa: E402
from ledit_jax.parallel.mesh import make_mesh  # noqa: E402
from ledit_jax.training.program import TrainProgram  # noqa: E402

BANDWIDTH = {f"TPU {name}": 1e9 * GENERATIONS[name].hbm_gb_per_second for name in ("v5e", "v5p", "v6e")}
BANDWIDTH |= {"NVIDIA H100 80GB HBM3": 3350e9}
"""Bytes/s of memory, from the makers' data sheets."""
V5E = BANDWIDTH["TPU v5e"]
BATCHES = {"train": {256: 16, 512: 4, 1024: 1}, "sample": {256: 8, 512: 8, 1024: 2}}
"""By size of the image: what dense attention leaves room for on a v5e chip."""
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
    params = abstract_params(make_network(config, make_process(config)))
    num_params, flops = count_params(params), forward_flops(params, config.token_grid(side, side))
    T, D, L = config.num_tokens(side, side), config.model.width, config.model.depth
    activations = T * L * 20 * D * _HALF
    if task == "train":
        return 3 * batch * flops, 3 * batch * activations + 12 * _FULL * num_params
    return 2 * batch * flops, 2 * batch * activations + _FULL * num_params


def compiled_counts(config: Config, task: str, side: int, batch: int, backend: str, depth: int) -> dict[str, float]:
    """FLOPs (without a kernel's) and bytes of the program for one v5e chip at this depth."""
    model = dataclasses.replace(config.model, attention=backend, depth=depth, scan_layers=False)
    data = dataclasses.replace(config.data, image_height=side, image_width=side)
    train = dataclasses.replace(config.train, batch_size=batch)
    config = dataclasses.replace(config, model=model, data=data, train=train)
    mesh = make_mesh(MeshConfig(data=1), describe_devices(parse_topology("v5e:1x1")))
    if task == "train":
        program = TrainProgram(config, mesh)
        step, arguments = program.step, (*program.abstract_arguments(), 1)
    else:
        step, arguments = denoising_program(config, mesh, side, side, batch)
    compiled = step.lower(*arguments).compile()
    return {"flops": count_flops(Program(compiled.as_text())), "bytes": compiled.cost_analysis()["bytes accessed"]}


def whole_counts(report: Report, config: Config, name: str, task: str, side: int, backend: str) -> tuple[float, float]:
    """(FLOPs, bytes) of the program at full depth: two depths counted, the rest by the straight line through them."""
    batch = BATCHES[task][side]
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
        # Backward, the kernel multiplies five times where forward it does twice.
        passes = batch * (1 + 2.5) if task == "train" else 2 * batch
        flops += passes * layers * attention_flops(config, config.num_tokens(side, side))
    return flops, moved


def tables(report: Report, name: str, tasks: list[str]) -> str:
    """Markdown: the floors with each chip's limit, then the compiled counts over the floor."""
    config = Config.from_dict(imagenet256.get_config(name).to_dict())
    limits, excess = [], []
    for task in tasks:
        for side, batch in BATCHES[task].items():
            flops, moved = floor(config, task, side, batch)
            rates = [_rate(batch, flops, moved, PEAK_BF16_FLOPS[chip], speed) for chip, speed in BANDWIDTH.items()]
            head = [f"{task} at {side}", str(batch)]
            limits.append([*head, f"{flops / 1e12:.1f}", f"{moved / 1e9:.1f}", f"{flops / moved:.0f}", *rates])
            for backend in ("xla", "splash"):
                counts = whole_counts(report, config, name, task, side, backend)
                over = [f"{counts[0] / flops:.2f}x", f"{counts[1] / 1e9:.1f}", f"{counts[1] / moved:.1f}x"]
                excess.append([*head, backend, *over, _rate(batch, *counts, PEAK_BF16_FLOPS["TPU v5e"], V5E)])
    chips = [f"{chip.split()[1]}: images/s" for chip in BANDWIDTH]
    head = ["step", "batch"]
    first = markdown([*head, "TFLOPs", "GB", "FLOPs/byte", *chips], limits)
    columns = ["attention", "FLOPs over the floor", "GB", "bytes over the floor", "v5e: images/s"]
    return "\n\n".join([first, markdown([*head, *columns], excess), report.heading()])


def _rate(batch: int, flops: float, moved: float, peak: float, bandwidth: float) -> str:
    seconds = max(flops / peak, moved / bandwidth)
    return f"{batch / seconds:.1f}, {'compute' if flops / peak >= moved / bandwidth else 'memory'}"


def main() -> None:
    """Compiles what is missing, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="LEDiT-XL/2", help="a preset (default: LEDiT-XL/2)")
    parser.add_argument("--task", choices=BATCHES, action="append", help="may be repeated (default: both)")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/roofline.json", metavar="PATH")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    print(tables(Report(args.json, ("jax", "libtpu")), args.model, args.task or list(BATCHES)))


if __name__ == "__main__":
    main()
