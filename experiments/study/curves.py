"""A study's figures over the training steps: what each method draws on the way, and what it had cost by then.

  python -m experiments.study.curves --config=configs/study_photos.py --workdir=runs/study_photos \\
      --config.images=PHOTOS.zip --config.methods=ledit,nope-conv,riflex,learnable

--config and --workdir are those of a study, whose arms have been trained or are on their way; nothing is trained here.
Every checkpoint that a run has kept is drawn and measured (train.keep_every=5000 keeps one for each 5,000 steps);
--steps=5000,10000 chooses. WORKDIR gets curves.md, curves.json and a chart of each metric, curves-METRIC.png. Images
are kept, and the same command goes on after a kill.
"""

import dataclasses
import functools
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from absl import flags

from experiments.sizes import Size, relative_size, size_name
from experiments.steps import find_steps
from experiments.study.cells import draw_once
from experiments.study.charts import lines_chart
from experiments.study.config import Study, StudyConfig
from experiments.study.draw import StudyPipeline
from experiments.study.methods import find_method
from experiments.study.reference import Figures, Reference, make_reference, prepare_images
from experiments.study.results import METRICS
from ledit_jax import cli
from ledit_jax.config import Config
from ledit_jax.errors import CheckpointError
from ledit_jax.evaluation.tables import markdown
from ledit_jax.files import write_whole
from ledit_jax.flops import train_step_flops
from ledit_jax.models import abstract_params

SHOWN = ("accuracy", "frechet", "patches", "layout")
"""What has a chart and a place in the table, where it was measured."""


@dataclass(frozen=True)
class Point:
    """The figures of a checkpoint on the way, by one method, seed and size."""

    method: str
    seed: int
    step: int
    """Training steps of the arm; those of a base that it started from come on top."""
    petaflops: float
    """What these steps had cost, in 10^15 operations."""
    size: Size
    figures: Figures


def measure_steps(study: Study, reference: Reference, wanted: Sequence[str]) -> list[Point]:
    """Draws and measures the checkpoints that runs have kept; `wanted` as in `find_steps`.

    Raises CheckpointError for an arm that has none, or lacks one.
    """
    points = []
    for seed in study.config.seeds:
        for name in study.config.methods:
            weights = study.weights(find_method(name).arm, seed)
            for step, folder in find_steps(str(weights), wanted).items():
                pipeline = functools.cache(lambda folder=folder: StudyPipeline.from_checkpoint(folder))
                for size in study.config.image_sizes:
                    figures = reference.measure(draw_once(study, name, seed, size, pipeline, step))
                    cost = step * _step_flops(pipeline()) / 1e15
                    points.append(Point(name, seed, step, cost, size, figures))
            jax.clear_caches()  # the next arm's programs are others
    return points


def _step_flops(pipeline: StudyPipeline) -> int:
    config: Config = pipeline.config
    return train_step_flops(abstract_params(pipeline.network), config.token_grid(), config.train.batch_size)


def curves_table(points: Sequence[Point], trained_size: Size) -> str:
    """Markdown: methods and steps down, sizes across; the shown figures in the cells, means over the seeds."""
    sizes = list(dict.fromkeys(point.size for point in points))
    rows = []
    for method, step in dict.fromkeys((point.method, point.step) for point in points):
        ours = [point for point in points if (point.method, point.step) == (method, step)]
        cells = [
            ", ".join(METRICS[metric][1].format(_mean(ours, size, metric)) for metric in _shown(points))
            for size in sizes
        ]
        rows.append([find_method(method).label, f"{step:,}", f"{ours[0].petaflops:.3g}", *cells])
    titles = [f"{size_name(size)} ({relative_size(size, trained_size)})" for size in sizes]
    return markdown(["method", "step", "10^15 FLOPs", *titles], rows)


def _shown(points: Sequence[Point]) -> list[str]:
    return [metric for metric in SHOWN if getattr(points[0].figures, metric) is not None]


def _mean(points: Sequence[Point], size: Size, metric: str) -> float:
    return float(np.mean([getattr(point.figures, metric) for point in points if point.size == size]))


def curve_lines(points: Sequence[Point], metric: str) -> dict[str, dict[Size, tuple[list[int], list[float]]]]:
    """Label -> size -> training steps and the metric there, means over the seeds."""
    lines: dict[str, dict[Size, tuple[list[int], list[float]]]] = {}
    for method, size in dict.fromkeys((point.method, point.size) for point in points):
        ours = [point for point in points if point.method == method]
        steps = list(dict.fromkeys(point.step for point in ours))
        means = [_mean([point for point in ours if point.step == step], size, metric) for step in steps]
        lines.setdefault(find_method(method).label, {})[size] = (steps, means)
    return lines


def write_curves(points: Sequence[Point], trained_size: Size, command: str, folder: Path) -> None:
    """Writes curves.md, curves.json with a line for each point, and the charts; prints the table."""
    table = curves_table(points, trained_size)
    said = " / ".join(METRICS[metric][0].partition(" (")[0] for metric in _shown(points))
    write_whole(folder / "curves.md", f"{said}:\n\n{table}\n")
    lines = ",\n".join(f"    {json.dumps(dataclasses.asdict(point))}" for point in points)
    head = f'  "command": {json.dumps(command)},\n  "trained_size": {json.dumps(trained_size)},\n'
    write_whole(folder / "curves.json", "{\n" + head + '  "points": [\n' + lines + "\n  ]\n}\n")
    for metric in _shown(points):
        lines_chart(curve_lines(points, metric), metric, trained_size, "training step", folder / f"curves-{metric}.png")
    print(f"{said}:\n\n{table}\n\nWrote curves.md, curves.json and a chart of each to {folder}")


def main() -> None:
    workdir = Path(_WORKDIR.value)
    if not (workdir / "weights").is_dir():
        raise CheckpointError(f"--workdir={workdir} has no weights: train them with python -m experiments.study")
    config, folder = prepare_images(cli.load_config(StudyConfig.from_dict), workdir)
    points = measure_steps(Study(config, workdir), make_reference(config, folder), _STEPS.value)
    command = shlex.join(["python", "-m", "experiments.study.curves", *sys.argv[1:]])
    write_curves(points, config.trained_size, command, workdir)


if __name__ == "__main__":
    cli.define_config_flag("Study, for example configs/study_digits.py.")
    _WORKDIR = flags.DEFINE_string("workdir", None, "The study's.")
    _STEPS = flags.DEFINE_list("steps", ["all"], "Training steps, as in 5000,10000, or all that were kept.")
    flags.declare_key_flag("config")
    cli.require("config", "workdir")
    cli.run(main, __doc__)
