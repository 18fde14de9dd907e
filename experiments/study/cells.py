"""A study's cells: one method, one seed and one size each; drawn, measured and kept, or reported with an error."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np

from experiments.report import Samples, draw_samples
from experiments.study.arms import one_line
from experiments.study.config import Size, Study, sampling_options
from experiments.study.methods import METHODS
from experiments.study.reference import Figures, Reference
from ledit_jax.files import write_json
from ledit_jax.sampling.pipeline import LEDiTPipeline

logger = logging.getLogger(__name__)

_BATCH_ON_CPU, _BATCH = 25, 250
"""Images drawn at once: on CPU as many as its caches hold. What is drawn does not depend on it."""


@dataclass(frozen=True)
class Cell:
    """The figures of a method at a size with a seed, or None and the error that stood in the way."""

    method: str
    seed: int
    size: Size
    figures: Figures | None
    error: str = ""


def measure_seed(study: Study, seed: int, reference: Reference, failed: Mapping[str, str]) -> list[Cell]:
    """Draws and measures every method at every size with a seed; `failed` are the errors of arms without weights."""
    cells = []
    for arm in study.config.arms:
        pipeline = None
        for name in (name for name in study.config.methods if METHODS[name].arm == arm):
            for size in study.config.image_sizes:
                if arm in failed:
                    cells.append(Cell(name, seed, size, None, failed[arm]))
                    continue
                try:
                    figures = _finished(study, name, seed, size)
                    if figures is None:
                        pipeline = pipeline or LEDiTPipeline.from_checkpoint(study.weights(arm, seed))
                        figures = _measure_cell(study, name, seed, size, pipeline, reference)
                    cells.append(Cell(name, seed, size, figures))
                except Exception as error:  # reported in its place in the table
                    cells.append(Cell(name, seed, size, None, one_line(error)))
                    logger.error(f"{name}, seed {seed}, {size[0]}x{size[1]}: {one_line(error)}")
        jax.clear_caches()  # the next arm's programs are others
    return cells


def _measure_cell(
    study: Study, name: str, seed: int, size: Size, pipeline: LEDiTPipeline, reference: Reference
) -> Figures:
    """Draws a cell's images, measures them and writes both; the figures come last and mark it as finished."""
    config = study.config
    options = pipeline.options(**sampling_options(config, METHODS[name]))

    def draw(height: int, width: int, labels: np.ndarray, seed: int, label: str) -> np.ndarray:
        size = _BATCH_ON_CPU if jax.default_backend() == "cpu" else _BATCH
        batches = pipeline.batches(
            labels.tolist(), height, width, options=options, seed=seed, batch_size=size, progress=f"{name} {label}"
        )
        return np.concatenate(list(batches))

    samples = draw_samples(draw, [size], config.experiment.model.num_classes, config.per_class, seed)[0]
    figures = reference.measure(samples)
    path = study.cell(name, seed, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path.with_suffix(".npz"), images=samples.images, labels=samples.labels)
    record = {"figures": dataclasses.asdict(figures), "drawn_with": _drawn_with(study, name)}
    write_json(path.with_suffix(".json"), record)
    return figures


def _finished(study: Study, name: str, seed: int, size: Size) -> Figures | None:
    """A cell's figures, if it was drawn with the settings of now."""
    path = study.cell(name, seed, size).with_suffix(".json")
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    return Figures(**record["figures"]) if record["drawn_with"] == _drawn_with(study, name) else None


def _drawn_with(study: Study, name: str) -> dict:
    config = study.config
    judged = {"judge_steps": config.judge_steps, "sizes": list(config.sizes)} if config.images else {}
    settings = {"steps": config.steps, "per_class": config.per_class} | judged | sampling_options(config, METHODS[name])
    return json.loads(json.dumps(settings))  # as it reads back: tuples are lists


def load_images(study: Study, cell: Cell) -> Samples:
    with np.load(study.cell(cell.method, cell.seed, cell.size).with_suffix(".npz")) as arrays:
        return Samples(arrays["images"], arrays["labels"])
