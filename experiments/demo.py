"""`make demo`: the whole job in about a minute, starting from the shipped checkpoint of printed digits.

Trains it on, stops it with SIGTERM, resumes with the same command, then draws images at sizes that it never saw and
measures them as the study does. Run from the repository's root.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from configs import study_glyphs
from experiments.measure import measure_checkpoint
from experiments.study.reference import make_reference
from ledit_jax import cli
from ledit_jax.errors import TrainingStopped

SIZES = ("16x16", "24x24", "32x32", "16x32", "32x16")
"""1x, 1.5x and 2x the training side, then 2:1 and 1:2 (width to height)."""
_PER_CLASS = 4


def stop_at(step: int, process: subprocess.Popen, metrics: Path) -> None:
    """Sends SIGTERM to a run of train.py once metrics.jsonl has reached `step`; it must save and exit with 0."""
    while process.poll() is None and last_step(metrics) < step:
        time.sleep(0.2)
    if process.poll() is None:
        print(f"\n-- stopping it with SIGTERM at step {last_step(metrics)}", flush=True)
        process.send_signal(signal.SIGTERM)
    finish(process)


def finish(process: subprocess.Popen) -> None:
    """Waits for the run's end. Raises TrainingStopped if it failed."""
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
    command = [sys.executable, "train.py", "--config=configs/glyphs.py:demo", f"--workdir={run}"]
    command += ["--init_from=assets/glyphs", f"--config.train.num_steps={_STEPS.value}"]
    # What the first start compiles, the second reads.
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(workdir / "cache")}
    print("-- training the shipped checkpoint on\n$", " ".join(["python", *command[1:]]), flush=True)
    process = subprocess.Popen(command, env=environment)
    study = dataclasses.replace(study_glyphs.study(), sizes=SIZES, per_class=_PER_CLASS)
    stop_at(_STEPS.value // 2, process, run / "metrics.jsonl")
    print("-- the same command again resumes", flush=True)
    finish(subprocess.Popen(command, env=environment))
    print("-- images of the weights just trained, at sizes that they never saw", flush=True)
    measure_checkpoint(study, make_reference(study, None), run, "LEDiT", workdir, "make demo")
    print(f"all of it took {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "Replaced if it exists.")
    _STEPS = flags.DEFINE_integer("steps", 40, "Training steps, half of them before the stop.", lower_bound=20)
    cli.run(main, __doc__)
