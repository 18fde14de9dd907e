"""A study's cells: one method, one seed and one size each; drawn once, measured, or reported with an error."""

import functools
import json
import logging
from collections.abc import Callable, Mapping

import jax
import numpy as np

from experiments.sizes import Size, size_name
from experiments.study.arms import one_line
from experiments.study.config import Study, sampling_options
from experiments.study.draw import draw
from experiments.study.images import Samples
from experiments.study.methods import METHODS
from experiments.study.reference import Reference
from experiments.study.results import Cell
from ledit_jax.errors import DataError
from ledit_jax.files import whole_file
from ledit_jax.readers import Header, check_array, parse_json, read_npz
from ledit_jax.sampling.pipeline import LEDiTPipeline

logger = logging.getLogger(__name__)


def measure_seed(study: Study, seed: int, reference: Reference, failed: Mapping[str, str]) -> list[Cell]:
    """Draws and measures every method at every size with a seed; `failed` are the errors of arms without weights."""
    cells = []
    for arm in study.config.arms:
        pipeline = functools.cache(lambda arm=arm: LEDiTPipeline.from_checkpoint(study.weights(arm, seed)))
        for name in (name for name in study.config.methods if METHODS[name].arm == arm):
            for size in study.config.image_sizes:
                if arm in failed:
                    cells.append(Cell(name, seed, size, None, failed[arm]))
                    continue
                try:
                    samples = _drawn(study, name, seed, size, pipeline)
                    cells.append(Cell(name, seed, size, reference.measure(samples)))
                except Exception as error:  # reported in its place in the table
                    cells.append(Cell(name, seed, size, None, one_line(error)))
                    logger.error(f"{name}, seed {seed}, {size_name(size)}: {one_line(error)}")
        jax.clear_caches()  # the next arm's programs are others
    return cells


def load_images(study: Study, method: str, seed: int, size: Size) -> Samples | None:
    """The images of a cell, if they were drawn, and with the settings of now."""
    path = study.cell(method, seed, size)
    if not path.exists():
        return None
    kinds = {"images": ((None, *size, None), "uint8"), "labels": ((None,), "iu"), "drawn_with": ((), "U")}

    def wanted(name: str, header: Header) -> bool:
        check_array(path, name, header, *kinds.get(name, ((), "U")))
        return name in kinds

    try:
        arrays = read_npz(path, wanted)
        if arrays.keys() != kinds.keys() or len(arrays["images"]) != len(arrays["labels"]):
            raise DataError(f"{path} holds other arrays than {', '.join(kinds)}")
        drawn_with = parse_json(str(arrays["drawn_with"]), path)
    except DataError as error:
        logger.warning(f"{error}: its images are drawn again")
        return None
    return Samples(arrays["images"], arrays["labels"]) if drawn_with == _drawn_with(study, method) else None


def _drawn(study: Study, method: str, seed: int, size: Size, pipeline: Callable[[], LEDiTPipeline]) -> Samples:
    """The images of a cell, from its file or else drawn and kept there."""
    samples = load_images(study, method, seed, size)
    if samples is not None:
        return samples
    model = pipeline()
    options = model.options(**sampling_options(study.config, METHODS[method]))
    samples = draw(model, size, per_class=study.config.per_class, seed=seed, options=options, caption=method)
    path = study.cell(method, seed, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        settings = json.dumps(_drawn_with(study, method))
        np.savez_compressed(file, images=samples.images, labels=samples.labels, drawn_with=settings)
    return samples


def _drawn_with(study: Study, method: str) -> dict:
    config = study.config
    settings = {"steps": config.steps, "per_class": config.per_class} | sampling_options(config, METHODS[method])
    return json.loads(json.dumps(settings))  # as it reads back: tuples are lists
