"""Predicts the time of LEDiT-XL/2's steps on TPUs that are not there, and prints it as a Markdown table.

  python benchmarks/predicted.py                       compiles what is missing, prints the table
  python benchmarks/predicted.py --task=sample         sampling alone, which compiles in a fraction of the time
  python benchmarks/predicted.py --task=train-unrolled training with no loop over the layers, on v5e
  python benchmarks/predicted.py --only=v5e            one generation

Each cell is compiled as `--compile_only` does it, in a process of its own, and kept in
benchmarks/results/predicted.json, so that the same command goes on after an interruption. What the compiler refuses is
kept with its words. Nothing is run or measured: docs/compile_only.md says what a predicted time is made of. After a
change of the code remove the cells that it concerns. Sampling is the step alone; benchmarks/decoder_memory.py has the
decoder.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import Report  # noqa: E402
from configs import imagenet256  # noqa: E402
from ledit_jax.compile_only.programs import report_denoising_step  # noqa: E402
from ledit_jax.evaluation.tables import markdown  # noqa: E402

RESULTS = ROOT / "benchmarks/results/predicted.json"
SLICES = {"v5e": ("v5e:4x4", "v5e:1x1"), "v5p": ("v5p:2x2x4", "v5p:1x1x1")}
SLICES |= {"v6e": ("v6e:4x4", "v6e:1x1"), "tpu7x": ("tpu7x:2x2x2", "tpu7x:1x1x1")}
"""By generation: 16 devices for training, and a chip for sampling."""
SAMPLES = {256: 8, 512: 8, 1024: 2, 2048: 1}
"""Images at a time on a device, by side in pixels."""
TASKS = ("train", "train-unrolled", "sample")
SELF = "benchmarks/predicted.py"
COLUMNS = ("compute", "kernels", "network", "hidden", "exposed")


def cells() -> list[tuple[str, str, int, tuple[str, ...]]]:
    """(task, generation, side in pixels, command) of every cell."""
    found = []
    for side in (256, 512):
        config = (f"--config=configs/imagenet{side}.py:LEDiT-XL/2", "--config.model.remat=dots")
        for generation, (pod, _) in SLICES.items():
            found.append(("train", generation, side, ("train.py", *config, f"--compile_only={pod}")))
        unrolled = (*config, "--config.model.scan_layers=false", f"--compile_only={SLICES['v5e'][0]}")
        found.append(("train-unrolled", "v5e", side, ("train.py", *unrolled)))
    for side, batch in SAMPLES.items():
        for generation, (_, chip) in SLICES.items():
            found.append(("sample", generation, side, (SELF, "--step", chip, str(side), str(batch))))
    return found


def compile_cell(command: tuple[str, ...]) -> dict:
    """What the cell's program needs and is predicted to take; or {"refused": the last line of its errors}.

    Raises SystemExit where the TPU compiler is missing.
    """
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    run = {"command": " ".join(("python", *command))}
    if result.returncode not in (0, 1) or not result.stdout:
        message = (result.stderr.strip().splitlines() or ["no message"])[-1]
        if "needs the TPU compiler" in message:
            sys.exit(message)
        return run | {"refused": message[:300]}
    report = json.loads(result.stdout.splitlines()[-1])
    kept = ("program", "mesh", "fits", "needed_bytes", "capacity_bytes", "images", "milliseconds_at_peak", "predicted")
    chips = {"slice": report["topology"]["name"], "chips": report["topology"]["chips"]}
    return run | chips | {name: report[name] for name in kept}


def compile_step(chip: str, side: int, batch: int) -> str:
    """The report of sampling's guided step, as JSON."""
    return report_denoising_step(imagenet256.experiment(), chip, side, side, batch).to_json()


def table_row(task: str, generation: str, side: int, row: dict) -> list[str]:
    """A row of the table."""
    if "refused" in row:
        slice_name = SLICES[generation][1 if task == "sample" else 0]
        return [f"{task} at {side}", slice_name, "-", f"refused: {row['refused']}", *["-"] * (len(COLUMNS) + 2)]
    what = [f"{task} at {side}", row["slice"], str(row["images"] // row["chips"])]
    memory = f"{row['needed_bytes'] / 2**30:.2f} of {row['capacity_bytes'] / 2**30:.2f} GiB"
    predicted = row["predicted"]
    if not predicted:
        return [*what, memory, *["-"] * (len(COLUMNS) + 2)]
    times = [f"{predicted[name]:.1f}" for name in COLUMNS]
    rate = 1e3 * row["images"] / row["chips"] / predicted["hidden"]
    return [*what, memory, *times, f"{rate:.1f}", f"{row['milliseconds_at_peak'] / predicted['hidden']:.0%}"]


def main() -> None:
    """Compiles what is missing, prints the table of what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, action="append", help="may be repeated (default: all)")
    parser.add_argument("--only", choices=SLICES, action="append", help="a generation; may be repeated (default: all)")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="PATH")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(compile_step(args.step[0], *map(int, args.step[1:])))
        return
    report, rows = Report(args.json, ("jax", "libtpu")), []
    for task, generation, side, command in cells():
        name = f"{task} {side} {generation}"
        if task in (args.task or (task,)) and generation in (args.only or (generation,)):
            report.get(name, lambda command=command: compile_cell(command))
        if name in report.results:
            rows.append(table_row(task, generation, side, report.results[name]))
    milliseconds = [f"{name}, ms" for name in COLUMNS]
    header = ["step", "slice", "images a chip", "HBM / chip", *milliseconds, "images/s a chip", "of peak"]
    print(f"{markdown(header, rows)}\n\n{report.heading()}")


if __name__ == "__main__":
    main()
