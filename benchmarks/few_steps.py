"""Quality against network calls with the time they take, and a training step of each process, on the digits model.

  python -m experiments.study --config=configs/study_flow.py --workdir=runs/study_flow
  python benchmarks/few_steps.py --workdir=runs/study_flow

The first command trains the weights. The second draws 100 images at 16x16 with each sampler, in turns of a batch each,
has the study's judge read them, then times training steps in turns. Writes few_steps.json beside the other
results; what is there is not measured again.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import Report  # noqa: E402
from configs import study_flow  # noqa: E402
from experiments.study.config import Study, arm_config  # noqa: E402
from experiments.study.images import Samples  # noqa: E402
from experiments.study.reference import make_reference  # noqa: E402
from ledit_jax.sampling.pipeline import LEDiTPipeline  # noqa: E402
from ledit_jax.training.loop import Run  # noqa: E402

CASES = {
    "DDPM-250": ("ledit", "ddpm", 250),
    "DPM-Solver++-25": ("ledit", "dpmpp", 25),
    "Heun-16": ("ledit-flow", "heun", 16),
    "flow-25": ("ledit-flow", "ab2", 25),
    "MeanFlow-1": ("ledit-meanflow", "meanflow", 1),
    "MeanFlow-2": ("ledit-meanflow", "meanflow", 2),
}
ARMS = {"diffusion": "ledit", "flow": "ledit-flow", "MeanFlow": "ledit-meanflow"}
_BATCH = 25


def measure_sampling(study: Study, turns: int) -> dict[str, dict]:
    """Calls, share read right, Frechet distance, and milliseconds per image (median over the turns) by case."""
    config, size = study.config, study.config.trained_size
    labels = np.arange(_BATCH * turns) % config.experiment.model.num_classes
    pipelines = {arm: LEDiTPipeline.from_checkpoint(study.weights(arm, 0)) for arm in ARMS.values()}
    images, seconds = {name: [] for name in CASES}, {name: [] for name in CASES}
    for turn in range(-1, turns):  # the first one compiles
        indices = np.arange(_BATCH) + _BATCH * max(turn, 0)
        for name, (arm, sampler, calls) in CASES.items():
            options = pipelines[arm].options(config.experiment.sample, sampler=sampler, num_steps=calls)
            start = time.perf_counter()
            latents = pipelines[arm].sample_latents(labels[indices].astype(np.int32), indices, *size, options, 0)
            jax.block_until_ready(latents)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
                images[name].append(pipelines[arm].decode(latents))
    reference, rows = make_reference(config, None), {}
    for name, (_, _, calls) in CASES.items():
        figures = reference.measure(Samples(np.concatenate(images[name]), labels))
        rows[name] = {
            "calls": calls,
            "read_right": round(figures.accuracy, 3),
            "frechet": round(figures.frechet, 2),
            "ms_per_image": round(1e3 * statistics.median(seconds[name]) / _BATCH, 2),
        }
    return rows


def measure_training(study: Study, turns: int, steps: int) -> dict[str, dict]:
    """Milliseconds of a compiled training step (median over the turns), and the median ratio to diffusion's turn."""
    seconds = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        sides = {}
        for name, arm in ARMS.items():
            config = arm_config(study.config, arm, 0)
            config = config.replaced("train", dilation_probability=0.0)  # one program serves all steps
            run = Run(config, Path(folder) / name)
            sides[name] = [run, run.start(), run.next_batch()]
        for turn in range(-1, turns):  # the first one compiles
            for name, (run, state, batch) in sides.items():
                start = time.perf_counter()
                for _ in range(steps):
                    state, _ = run.program.step(state, batch, run.key, 1)
                jax.block_until_ready(state)
                sides[name][1] = state
                if turn >= 0:
                    seconds[name].append((time.perf_counter() - start) / steps)
        for run, _, _ in sides.values():
            run.loader.close()
            run.checkpointer.close()
    return {
        name: {
            "ms_per_step": round(1e3 * statistics.median(ours), 1),
            "over_diffusion": round(
                statistics.median(a / b for a, b in zip(ours, seconds["diffusion"], strict=True)), 3
            ),
        }
        for name, ours in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=ROOT / "runs" / "study_flow", help="of the study's weights")
    parser.add_argument("--turns", type=int, default=4, help="batches of 25 images with each sampler (default: 4)")
    parser.add_argument("--train_turns", type=int, default=15, help="turns of each training step (default: 15)")
    parser.add_argument("--train_steps", type=int, default=5, help="steps of a turn (default: 5)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "few_steps.json")
    args = parser.parse_args()
    study = Study(dataclasses.replace(study_flow.study(), sizes=("16x16",)), args.workdir)
    report = Report(args.out, ("jax", "numpy"))
    rows = report.get("sampling", lambda: measure_sampling(study, args.turns))
    print("| sampler | calls | read right | Fréchet | ms per image |\n|---|---|---|---|---|")
    for name, row in rows.items():
        print(
            f"| {name} | {row['calls']} | {row['read_right']:.0%} | {row['frechet']:.2f} | {row['ms_per_image']:.2f} |"
        )
    rows = report.get("training", lambda: measure_training(study, args.train_turns, args.train_steps))
    print("\n| step of | ms | over diffusion |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['ms_per_step']:.1f} | {row['over_diffusion']:.2f} |")
    print("\n" + report.heading())


if __name__ == "__main__":
    main()
