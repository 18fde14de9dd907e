"""The images of a checkpoint at a size: how the study, the demo and the pages have them drawn."""

import jax
import numpy as np

from experiments.sizes import Size, size_name
from experiments.study.images import Samples
from ledit_jax.config import SampleConfig
from ledit_jax.sampling.pipeline import LEDiTPipeline

_BATCH_ON_CPU, _BATCH = 25, 250
"""Images drawn at once: on CPU as many as its caches hold. What is drawn does not depend on it."""


def draw(
    pipeline: LEDiTPipeline, size: Size, *, per_class: int, seed: int, options: SampleConfig, caption: str
) -> Samples:
    """`per_class` images of every class, one row of all classes after the other; `caption` opens the progress bar."""
    labels = np.tile(np.arange(pipeline.config.model.num_classes), per_class)
    batches = pipeline.batches(
        labels.tolist(),
        *size,
        options=options,
        seed=seed,
        batch_size=_BATCH_ON_CPU if jax.default_backend() == "cpu" else _BATCH,
        progress=f"{caption} {size_name(size)}",
    )
    return Samples(np.concatenate(list(batches)), labels)
