"""Training and sampling on one GPU: ours against compiled PyTorch with SDPA and with FlexAttention, in the same run.

  make bench-gpu                          everything, on one NVIDIA GPU
  python benchmarks/gpu.py --dry_run      the same code at a tiny size on CPU; its times mean nothing

Cases: an optimiser step of LEDiT-XL/2 and DiT-XL/2 at 256x256, at the largest batch up to 256 that fits every side, and
one denoising step at 512x512 and 1024x1024, eight images with guidance. All in bfloat16 with float32 weights. First
all sides must compute the same on a shallow model. Each measurement has a process of its own, so that peak memory is
its own, and is written as soon as it is done: started again, the command goes on. After --minutes no other one begins.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.report import Report  # noqa: E402
from configs import imagenet256  # noqa: E402
from ledit_jax.config import Config  # noqa: E402
from ledit_jax.diffusion import make_process  # noqa: E402
from ledit_jax.flops import forward_flops  # noqa: E402
from ledit_jax.models import abstract_params, make_network  # noqa: E402

SAMPLE_BATCH = 8
NO_MEMORY = "out of memory"
SIDES = {"jax": "ledit_jax", "sdpa": "PyTorch, SDPA", "flex": "PyTorch, FlexAttention"}
GROUPS = (  # the most telling first; in training PyTorch, which recomputes nothing, finds the batch that fits
    ("train", "LEDiT-XL/2", 256, ("sdpa", "jax", "flex")),
    ("sample", "LEDiT-XL/2", 1024, ("jax", "flex", "sdpa")),
    ("train", "DiT-XL/2", 256, ("sdpa", "jax")),
    ("sample", "LEDiT-XL/2", 512, ("jax", "flex", "sdpa")),
    ("sample", "DiT-XL/2", 512, ("jax", "sdpa")),
    ("sample", "DiT-XL/2", 1024, ("jax", "sdpa")),
)
_REMAT = "dots"  # of ours, in training: what one GPU has memory for, at the price of elementwise work done twice
_DRY_GROUPS = (GROUPS[0], GROUPS[3])  # every task and side once; more pixels have nothing new and take a CPU long
_TINY = dict(depth=2, width=32, num_heads=2, num_classes=10)


def make_config(model: str, dry_run: bool, **fields) -> Config:
    """The ImageNet experiment of a model, made tiny for a dry run."""
    config = Config.from_dict(imagenet256.get_config(model).to_dict())
    model = dataclasses.replace(config.model, remat=_REMAT, **((_TINY if dry_run else {}) | fields))
    return dataclasses.replace(config, model=model)


def make_inputs(config: Config, batch: int, side: int) -> dict[str, np.ndarray]:
    """Noisy latents NHWC, noise, timesteps and labels for images of `side` pixels."""
    rng, shape = np.random.default_rng(0), (batch, *config.latent_shape(side, side))
    return {
        "x": rng.normal(size=shape).astype(np.float32),
        "noise": rng.normal(size=shape).astype(np.float32),
        "t": rng.integers(0, 1000, batch).astype(np.int32),
        "y": rng.integers(0, config.model.num_classes, batch).astype(np.int32),
    }


def measure(task: str, model: str, side: int, runner: str, batch: int, dry_run: bool) -> dict[str, float | str]:
    """Seconds of the first step and, median, of later ones, and peak memory."""
    config = make_config(model, dry_run)
    inputs = make_inputs(config, batch, side)
    if runner == "jax":
        from benchmarks import gpu_jax

        step, peak = gpu_jax.make_step(config, task, inputs)
    elif dry_run and task == "train" and runner == "flex":
        return {"error": "FlexAttention trains on GPUs alone"}
    else:
        from benchmarks import gpu_torch

        step, peak = gpu_torch.make_step(config, task, inputs, runner, dry_run)
    times = []
    for _ in range(3 if dry_run else 13):
        start = time.perf_counter()
        result = step()
        times.append(time.perf_counter() - start)
        if not math.isfinite(result):
            raise ValueError(f"{task} {model} {side} {runner} gives {result}")
    return {"first": times[0], "step": statistics.median(times[len(times) // 4 + 1 :]), "memory": peak()}


def check(dry_run: bool) -> dict[str, float | str]:
    """The device, its matrix-product rate, and the largest difference between the sides' outputs, shallow models.

    Raises ValueError if they differ by more than bfloat16 explains.
    """
    import jax

    from benchmarks import gpu_jax, gpu_torch

    device = jax.devices()[0]
    worst = 0.0
    for model in ("LEDiT-XL/2", "DiT-XL/2"):
        config = make_config(model, dry_run, depth=2)
        inputs = make_inputs(config, 2, 256)
        peer, results = gpu_torch.outputs(config, inputs, "cpu" if dry_run else "cuda")
        ours = gpu_jax.output(config, peer, inputs)
        worst = max(worst, *(float(np.abs(ours - a).max() / np.abs(a).max()) for a in results.values()))
    if worst > 0.05:
        raise ValueError(f"outputs differ by {worst:.3f} of their largest value: nothing is timed")
    rate = gpu_jax.matmul_rate(*((256, 2) if dry_run else ()))
    return {"device": device.device_kind, "matmul_rate": rate, "difference": worst}


def isolated(arguments: tuple, timeout: float) -> dict:
    """The result of this script's --measure in a process of its own; {"error": one line} if it failed."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if arguments[0] == "check":
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # PyTorch is in the same process
    command = [sys.executable, __file__, "--measure", *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout:.0f} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    text = done.stderr.lower()
    if "out of memory" in text or "resource_exhausted" in text:
        return {"error": NO_MEMORY}
    return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}


def run_group(report: Report, group: tuple, dry_run: bool, deadline: float) -> None:
    """Measures each side of a case; training at half the batch as long as one of them runs out of memory."""
    task, model, side, runners = group
    batch = (4 if dry_run else 256) if task == "train" else (2 if dry_run else SAMPLE_BATCH)
    while batch:
        for runner in runners:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            case = (task, model, side, runner, batch)
            compute = functools.partial(measure, *case, True) if dry_run else functools.partial(isolated, case, left)
            result = report.get(f"{task} {model} {side} batch {batch} {runner}", compute, final=(NO_MEMORY,))
            if result.get("error") == NO_MEMORY and task == "train" and batch > 1:
                batch //= 2
                break
        else:
            return


def table(report: Report, dry_run: bool) -> str:
    """Markdown: a row for each side of each case, at the batch that fitted all."""
    facts = report.results["check"]
    lines = [
        "| step | batch | side | images/s | step, ms | MFU | peak, GB | first step, s | ours is |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, model, side, runners in GROUPS:
        names = [name for name in report.results if name.startswith(f"{task} {model} {side} batch ")]
        if not names:
            continue
        batch = min(int(name.split()[-2]) for name in names)
        rows = {r: report.results.get(f"{task} {model} {side} batch {batch} {r}", {}) for r in runners}
        config = make_config(model, dry_run)
        params = abstract_params(make_network(config, make_process(config)))
        flops = batch * forward_flops(params, config.token_grid(side, side)) * (3 if task == "train" else 2)
        for runner, row in rows.items():
            head = f"| {task} {model} at {side} | {batch} | {SIDES[runner]} |"
            if "step" not in row:
                lines.append(f"{head} {row.get('error', 'not run')} | | | | | |")
                continue
            seconds = row["step"]
            faster = seconds / rows["jax"]["step"] if "step" in rows["jax"] else math.nan
            mfu = flops / seconds / facts["matmul_rate"]
            lines.append(
                f"{head} {batch / seconds:.1f} | {1e3 * seconds:.1f} | {mfu:.1%} | {row['memory'] / 1e9:.1f} | "
                f"{row['first']:.1f} | {'' if runner == 'jax' else f'{faster:.2f}x as fast'} |"
            )
    lines += [
        "",
        f"{facts['device']}, {facts['matmul_rate'] / 1e12:.0f} TFLOP/s in bfloat16 products as measured, "
        f"Python {platform.python_version()}, {report.heading()}. MFU counts the model's own FLOPs against that rate. "
        f"Outputs of the sides agree to {facts['difference']:.1e} of their largest value.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures what is missing, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry_run", action="store_true", help="a tiny model on CPU, in this process")
    parser.add_argument("--minutes", type=float, default=8.0, help="start nothing after that (default: 8)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", metavar="FOLDER")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        task, *rest = args.measure
        result = check(False) if task == "check" else measure(task, rest[0], int(rest[1]), rest[2], int(rest[3]), False)
        print(json.dumps(result))
        return
    if not args.dry_run and shutil.which("nvidia-smi") is None:
        print("error: no NVIDIA GPU is here: use --dry_run to try the script on CPU", file=sys.stderr)
        sys.exit(2)
    deadline = time.monotonic() + 60 * args.minutes
    name = "gpu_dry_run" if args.dry_run else "gpu"
    report = Report(args.out / f"{name}.json", ("jax", "jaxlib", "torch", "triton"))
    facts = report.get("check", lambda: check(True) if args.dry_run else isolated(("check",), 60 * args.minutes))
    if "error" in facts:
        sys.exit(f"error: {facts['error']}")
    for group in _DRY_GROUPS if args.dry_run else GROUPS:
        run_group(report, group, args.dry_run, deadline)
    text = table(report, args.dry_run)
    (args.out / f"{name}.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
