"""Kills a training run with SIGKILL at random moments, again and again, and compares its end with an untouched run's.

Each time the same command is started anew. Half of the kills come at a random moment after the launch (imports,
restoring, compiling), the other half at a random moment after the first step of that life (training, saving). At the
end the weights, their EMA, the optimiser's state, the data position and every logged loss must be those of a run that
nobody touched, bit for bit. Exit code 1 if they are not.

The run is LEDiT on digits (1.1M parameters) with a checkpoint every five steps, so that kills often hit a save.
Results: benchmarks/README.md.
"""

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from ledit_jax.config import Config  # noqa: E402
from ledit_jax.diffusion import make_process  # noqa: E402
from ledit_jax.models import make_network  # noqa: E402
from ledit_jax.training.checkpoint import TrainCheckpointer  # noqa: E402
from ledit_jax.training.state import init_state  # noqa: E402
from ledit_jax.weights import find_checkpoint, load_description  # noqa: E402

CHECKPOINT_EVERY = 5
TEMPORARY = ".orbax-checkpoint-tmp"


@dataclasses.dataclass
class Life:
    """A process of the run, from its launch to its end."""

    process: subprocess.Popen
    log: Path
    launched: float

    def seconds(self) -> float:
        return time.monotonic() - self.launched

    def last_step(self) -> int:
        """Last step of this life that was logged; 0 before its first."""
        steps = [line.split("/")[0] for line in self.log.read_text().splitlines() if line.startswith("step ")]
        return int(steps[-1].removeprefix("step ")) if steps else 0

    def wait_for_step(self) -> None:
        """Returns at the first step of this life, or when the process has ended."""
        while not self.last_step() and self.process.poll() is None:
            time.sleep(0.01)


def launch(workdir: Path, steps: int, cache: Path) -> Life:
    """Starts the run, or goes on with it: the command is the same."""
    arguments = [f"--config.train.{name}={value}" for name, value in train_settings(steps).items()]
    command = [sys.executable, "train.py", "--config=configs/digits.py:flow", f"--workdir={workdir}", *arguments]
    # The untouched run compiles and fills the cache; the others read it.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    log = workdir.with_name(f"{workdir.name}-{time.monotonic_ns()}.log")
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)
    return Life(process, log, time.monotonic())


def train_settings(steps: int) -> dict[str, int]:
    """Overrides of the train section."""
    return dict(num_steps=steps, checkpoint_every=CHECKPOINT_EVERY, log_every=1, sample_every=0, keep_last=3)


def finish(life: Life) -> float:
    """Waits for the end of the run; returns the life's seconds."""
    if life.process.wait():
        sys.exit(f"the run failed on its own:\n{life.log.read_text()}")
    return life.seconds()


def checkpoints(workdir: Path) -> tuple[int, set[str]]:
    """(newest committed step or 0, names of checkpoints that are there and were never finished)."""
    names = {path.name for path in (workdir / "checkpoints").glob("*")}
    return max((int(name) for name in names if name.isdigit()), default=0), {n for n in names if TEMPORARY in n}


def kill_at_random(life: Life, start_up: float, window: float) -> str:
    """Kills the process within its start-up, or within `window` seconds of its first step; says after which step."""
    if random.random() < 0.5:
        moment = random.uniform(0, start_up)
        while life.seconds() < moment and not life.last_step() and life.process.poll() is None:
            time.sleep(0.01)
    else:
        life.wait_for_step()
        time.sleep(random.uniform(0, window))
    life.process.kill()
    if life.process.wait() != -9:
        sys.exit(f"the run ended before kill: more --steps are needed\n{life.log.read_text()}")
    return f"after step {life.last_step()}" if life.last_step() else "while starting"


def read_end(workdir: Path) -> tuple[list[np.ndarray], dict, list]:
    """(every array of the last checkpoint, the data position, every logged step with its loss)."""
    config = Config.from_dict(load_description(find_checkpoint(workdir))["config"])
    checkpointer = TrainCheckpointer(workdir, config)
    network = make_network(config, make_process(config))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.eval_shape(lambda: init_state(network, config.train, jax.random.key(0)))
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), abstract)
    state, data_state = checkpointer.restore(abstract)
    checkpointer.close()
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return (
        [np.asarray(leaf) for leaf in jax.tree.leaves(state)],
        data_state,
        [(row["step"], row["loss"]) for row in rows],
    )


def compare(killed: Path, untouched: Path) -> list[str]:
    """What differs between the ends of two runs; nothing, if all is well."""
    (arrays, position, losses), (expected, wanted, reference) = read_end(killed), read_end(untouched)
    wrong = sum(a.tobytes() != b.tobytes() for a, b in zip(arrays, expected, strict=True))
    problems = [f"{wrong} of {len(expected)} arrays differ"] if wrong else []
    problems += [] if position == wanted else [f"the data position is {position}, not {wanted}"]
    problems += [] if losses == reference else ["the logged losses differ"]
    return problems


def main() -> None:
    """Parses flags, runs, prints what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often the run is killed (default: 20)")
    parser.add_argument("--steps", type=int, default=400, help="steps of the run (default: 400)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    args = parser.parse_args()
    if args.kills < 1 or args.steps < 2 * args.kills:
        parser.error(f"--kills={args.kills} and --steps={args.steps}: at least 1, and at least two steps for each kill")
    random.seed(args.seed)
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(run(Path(folder), args.kills, args.steps))


def run(folder: Path, kills: int, steps: int) -> int:
    """The whole experiment; returns the exit code."""
    untouched, killed, cache = folder / "untouched", folder / "killed", folder / "cache"
    life = launch(untouched, steps, cache)
    life.wait_for_step()
    start_up = life.seconds()
    whole = finish(life)
    # Half of the lives train for half of this on average, so that the run is far from done at the last kill.
    window = 1.5 * (whole - start_up) / kills
    print(f"untouched: {steps} steps in {whole:.1f} s, of which {start_up:.1f} s to the first step", flush=True)
    print(f"{'kill':>4}  {'seconds':>7}  {'moment':<18}{'committed':>9}  during a save", flush=True)
    began, hits = time.monotonic(), 0
    for number in range(1, kills + 1):
        _, left_over = checkpoints(killed)
        life = launch(killed, steps, cache)
        moment = kill_at_random(life, start_up, window)
        committed, unfinished = checkpoints(killed)
        saving = bool(unfinished - left_over)
        hits += saving
        there = "yes" if saving else "no"
        print(f"{number:>4}  {life.seconds():>7.1f}  {moment:<18}{committed:>9}  {there}", flush=True)
    finish(launch(killed, steps, cache))
    problems = compare(killed, untouched)
    print(
        f"{kills} kills, {hits} of them in the middle of a save; the killed run took {time.monotonic() - began:.1f} s"
    )
    print("; ".join(problems) or "weights, EMA, optimiser, data position and every loss are equal, bit for bit")
    return int(bool(problems))


if __name__ == "__main__":
    main()
