"""A study's cells: one method, one seed and one size each; drawn once, measured, or reported with an error."""

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from experiments.sizes import Size, size_name
from experiments.study.config import Study, sampling_options
from experiments.study.draw import StudyPipeline, draw
from experiments.study.images import Samples
from experiments.study.methods import find_method
from experiments.study.reference import Reference
from experiments.study.results import Cell
from ledit_jax.errors import DataError, named
from ledit_jax.files import PieceFolder
from ledit_jax.files.readers import Header, check_array, read_npz

logger = logging.getLogger(__name__)


def open_samples(study: Study, method: str, seed: int, step: int | None = None) -> PieceFolder:
    """The folder of a method's images, one file for each size. Raises OutputError if it has other settings.

    step: of the checkpoint that drew them, where it is not the last.
    """
    config = study.config
    steps = config.steps if step is None else step
    settings = {"steps": steps, "per_class": config.per_class} | sampling_options(config, find_method(method))
    return PieceFolder.open(study.samples(method, seed, step), "settings.json", settings)


def measure_seed(study: Study, seed: int, reference: Reference, failed: Mapping[str, str]) -> list[Cell]:
    """Draws and measures every method at every size with a seed; `failed` are the errors of arms without weights."""
    cells = []
    for arm in study.config.arms:
        pipeline = functools.cache(lambda arm=arm: StudyPipeline.from_checkpoint(study.weights(arm, seed)))
        for name in (name for name in study.config.methods if find_method(name).arm == arm):
            for size in study.config.image_sizes:
                if arm in failed:
                    cells.append(Cell(name, seed, size, None, failed[arm]))
                    continue
                try:
                    samples = draw_once(study, name, seed, size, pipeline)
                    cells.append(Cell(name, seed, size, reference.measure(samples)))
                except Exception as error:  # reported in its place in the table
                    cells.append(Cell(name, seed, size, None, named(error)))
                    logger.error(f"{name}, seed {seed}, {size_name(size)}: {named(error)}")
        jax.clear_caches()  # the next arm's programs are others
    return cells


def load_samples(study: Study, method: str, seed: int, size: Size) -> Samples:
    """The images of a cell that was drawn. Raises DataError for a file that is damaged."""
    return open_samples(study, method, seed).read(_file(size), _load)


def draw_once(
    study: Study, method: str, seed: int, size: Size, pipeline: Callable[[], StudyPipeline], step: int | None = None
) -> Samples:
    """The images of a cell, from its file or else drawn and kept there. step: as in `open_samples`."""
    folder = open_samples(study, method, seed, step)
    if not folder.missing([_file(size)]):
        return folder.read(_file(size), _load)
    model = pipeline()
    options = model.options(**sampling_options(study.config, find_method(method)))
    samples = draw(model, size, per_class=study.config.per_class, seed=seed, options=options, caption=method)
    with folder.write(_file(size)) as file:
        np.savez_compressed(file, images=samples.images, labels=samples.labels)
    return samples


def _file(size: Size) -> str:
    return f"{size_name(size)}.npz"


def _load(path: Path) -> Samples:
    kinds = {"images": ((None, None, None, None), "uint8"), "labels": ((None,), "iu")}

    def wanted(name: str, header: Header) -> bool:
        check_array(path, name, header, *kinds.get(name, ((), "U")))
        return name in kinds

    arrays = read_npz(path, wanted)
    if arrays.keys() != kinds.keys() or len(arrays["images"]) != len(arrays["labels"]):
        raise DataError(f"{path} holds other arrays than {', '.join(kinds)}: remove it, and it is made again")
    return Samples(arrays["images"], arrays["labels"])
