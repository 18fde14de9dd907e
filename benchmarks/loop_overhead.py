"""Steps per second of the training loop beside those of its compiled step alone: what data, metrics and Python cost.

  python benchmarks/loop_overhead.py

Both train the digits model (configs/digits.py) in the same process, by turns. The bare step gets one batch over and
over; the loop reads data, logs every tenth step and shows its progress. Without dilation, so that one program serves
all steps. Prints the medians and their ratio; see benchmarks/README.md for results.
"""

import argparse
import dataclasses
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from configs import digits  # noqa: E402
from ledit_jax.config import Config  # noqa: E402
from ledit_jax.training.loop import Run, train  # noqa: E402


def bare_rate(config: Config, workdir: Path, steps: int) -> float:
    """Steps per second of the jitted step on a batch that is there already."""
    run = Run(config, workdir)
    state, batch = run.start(), run.next_batch()
    state, _ = run.program.step(state, batch, run.key, 1)  # compiles
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(steps):
        state, metrics = run.program.step(state, batch, run.key, 1)
    jax.block_until_ready((state, metrics))
    seconds = time.perf_counter() - start
    run.loader.close()
    run.checkpointer.close()
    return steps / seconds


def loop_rate(config: Config, workdir: Path) -> float:
    """Steps per second as the loop logs them, the first interval, which compiles, left out."""
    train(config, workdir)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(config.train.log_every / row["steps_per_sec"] for row in rows[1:])
    return config.train.log_every * (len(rows) - 1) / seconds


def main() -> None:
    """Takes turns, prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps of each turn (default: 100)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each side (default: 5)")
    args = parser.parse_args()
    config = Config.from_dict(digits.get_config("ledit").to_dict())
    fields = dict(num_steps=args.steps + 10, dilation_probability=0.0, sample_every=0, log_every=10)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **fields))
    logging.getLogger("absl").setLevel(logging.ERROR)
    bare, loop = [], []
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", f"{folder}/cache")
        for turn in range(args.turns):
            bare.append(bare_rate(config, Path(folder) / f"bare-{turn}", args.steps))
            loop.append(loop_rate(config, Path(folder) / f"loop-{turn}"))
            print(f"turn {turn + 1}: bare {bare[-1]:.2f} steps/s, loop {loop[-1]:.2f} steps/s", flush=True)
    ratio = statistics.median(ours / alone for ours, alone in zip(loop, bare, strict=True))
    device = jax.devices()[0].device_kind
    print(
        f"{device}: bare {statistics.median(bare):.2f}, loop {statistics.median(loop):.2f} steps/s (medians); "
        f"loop / bare {ratio:.3f} (median of turns)"
    )


if __name__ == "__main__":
    main()
