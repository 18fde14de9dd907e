"""`make demo`: the whole job on real data in minutes, starting from the shipped digits checkpoint.

Trains it on, stops it with SIGTERM, resumes with the same command, then samples at sizes it never saw and has an
independent classifier read what came out. Run from the repository's root.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from experiments.digits import report
from experiments.report import train_judge
from ledit_jax import cli
from ledit_jax.errors import TrainingStopped


def train_until(step: int, command: list[str], metrics: Path) -> None:
    """Runs train.py and sends SIGTERM once metrics.jsonl has reached `step`; it must save and exit with 0."""
    process = subprocess.Popen(command)
    while process.poll() is None and last_step(metrics) < step:
        time.sleep(0.2)
    if process.poll() is None:
        print(f"\n-- stopping it with SIGTERM at step {last_step(metrics)}", flush=True)
        process.send_signal(signal.SIGTERM)
    if code := process.wait():
        raise TrainingStopped(f"train.py ended with exit code {code}; its last lines are above")


def last_step(metrics: Path) -> int:
    """The newest step that a run has logged; 0 before the first."""
    # Whole lines only: the run may be writing one.
    lines = metrics.read_text().rpartition("\n")[0].splitlines() if metrics.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def main() -> None:
    workdir, started = Path(_WORKDIR.value), time.perf_counter()
    shutil.rmtree(workdir, ignore_errors=True)
    run = workdir / "train"
    command = [sys.executable, "train.py", "--config=configs/digits.py:demo", f"--workdir={run}"]
    command += ["--init_from=assets/digits", f"--config.train.num_steps={_STEPS.value}"]
    print("-- training the shipped checkpoint on\n$", " ".join(["python", *command[1:]]), flush=True)
    train_until(_STEPS.value // 2, command, run / "metrics.jsonl")
    print("-- the same command again resumes", flush=True)
    train_until(_STEPS.value + 1, command, run / "metrics.jsonl")
    print("-- sampling from the weights just trained, at sizes they never saw", flush=True)
    report("LEDiT", run, train_judge("digits"), _PER_CLASS.value)
    print(f"\nImages and tables are in {run}-report; all of it took {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "Replaced if it exists.")
    _STEPS = flags.DEFINE_integer("steps", 200, "Training steps, half of them before the stop.", lower_bound=20)
    _PER_CLASS = flags.DEFINE_integer("per_class", 10, "Images of each class and size.", lower_bound=1)
    cli.run(main, __doc__)
