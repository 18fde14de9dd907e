"""The digits experiment as commands: the recipe of the shipped checkpoint, its baselines, and the sizes they face.

  python -m experiments.digits --workdir=runs/digits             base DiT, then LEDiT; a report, and an export
  python -m experiments.digits --workdir=runs/digits --compare   DiT and NoPE as well; the table of the three

Run from the repository's root. Every arm resumes where it was stopped, and a finished one is not trained again.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.judge import ImageClassifier
from experiments.report import Row, Samples, comparison_table, draw_samples, measure, train_judge, write_report
from ledit_jax import cli
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.weights import export_weights, load_weights

SIZES = ((16, 16), (24, 24), (32, 32), (16, 32), (32, 16))
"""(height, width): 1x, 1.5x and 2x the training side, then 2:1 and 1:2 (width to height)."""
ARMS = {"ledit": "LEDiT", "dit": "DiT, sin/cos positions", "nope": "DiT, no positions"}


def train_arm(arm: str, workdir: Path, *flags_: str) -> None:
    """Runs train.py for one arm of configs/digits.py, as a user would, and shows the command."""
    command = [sys.executable, "train.py", f"--config=configs/digits.py:{arm}", f"--workdir={workdir}", *flags_]
    print("$", " ".join(["python", *command[1:]]), flush=True)
    if code := subprocess.run(command).returncode:
        sys.exit(code)


def measure_checkpoint(
    checkpoint: str | Path, judge: ImageClassifier, per_class: int, seed: int = 0
) -> tuple[list[Row], list[Samples]]:
    """Draws `per_class` images of each class at every one of SIZES and has them read."""
    pipeline = LEDiTPipeline.from_checkpoint(checkpoint)
    config = pipeline.config

    def draw(height, width, labels, seed, label):
        return pipeline(labels, height, width, seed=seed, batch_size=100, progress=f"sample {label}")

    samples = draw_samples(draw, SIZES, config.model.num_classes, per_class, seed)
    trained_size = config.data.image_height, config.data.image_width
    return measure(samples, judge, config.data.source, trained_size, config.granularity), samples


def report(name: str, workdir: Path, judge: ImageClassifier, per_class: int) -> list[Row]:
    """Measures an arm and writes its tables and images to WORKDIR-report."""
    rows, samples = measure_checkpoint(workdir, judge, per_class)
    write_report(
        rows, samples, f"{workdir}-report", [str(i) for i in range(10)], metrics={name: workdir / "metrics.jsonl"}
    )
    return rows


def export(workdir: Path, destination: Path) -> None:
    """The arm's EMA weights alone, as the repository ships them."""
    params, config, step = load_weights(workdir)
    if destination.exists():
        shutil.rmtree(destination)
    export_weights(destination, params, config, step)
    # Marks for object stores; they hold the path they were written to, and a folder on disk does without.
    for mark in destination.rglob("commit_success.txt"):
        mark.unlink()
    print(
        f"exported step {step} to {destination}; to ship it: rm -r assets/digits && cp -r {destination} assets/digits"
    )


def run(workdir: Path, arms: Sequence[str], per_class: int) -> None:
    """Trains and reports the arms, the base first, and prints their comparison if there are several."""
    train_arm("base", workdir / "base")
    for arm in arms:
        train_arm(arm, workdir / arm, f"--init_from={workdir / 'base'}")
    export(workdir / "ledit", workdir / "export")
    judge = train_judge("digits")
    results = [(ARMS[arm], report(ARMS[arm], workdir / arm, judge, per_class)) for arm in arms]
    if len(results) > 1:
        table = comparison_table(results)
        (workdir / "comparison.md").write_text(table + "\n")
        print(f"\nShare read right (Frechet distance); {workdir / 'comparison.md'}\n\n{table}")


def main() -> None:
    run(Path(_WORKDIR.value), list(ARMS) if _COMPARE.value else ["ledit"], _PER_CLASS.value)


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", "runs/digits", "Where the arms are trained.")
    _COMPARE = flags.DEFINE_bool("compare", False, "Train and measure the baselines too.")
    _PER_CLASS = flags.DEFINE_integer("per_class", 30, "Images of each class and size.", lower_bound=1)
    cli.run(main, __doc__)
