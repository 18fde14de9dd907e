"""The images of a checkpoint at a size: how the study, the demo and the pages have them drawn."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.sizes import Size, size_name
from experiments.study.images import Samples, held_out_captions
from ledit_jax.config import SampleConfig
from ledit_jax.diffusion import Sampler, conditional, guided
from ledit_jax.models import make_apply
from ledit_jax.sampling.pipeline import LEDiTPipeline

_BATCH_ON_CPU, _BATCH = 25, 250
"""Images drawn at once: on CPU as many as its caches hold. What is drawn does not depend on it."""


class StudyPipeline(LEDiTPipeline):
    """Compiles the network alone, once for each size, where the package compiles whole steps.

    A step's program is another for each sampler and number of calls, of which a study has dozens. Images differ by
    rounding.
    """

    def denoising_step(
        self, height: int | None, width: int | None, options: SampleConfig
    ) -> tuple[Sampler, Callable[..., Any]]:
        """As `LEDiTPipeline` has it; what a step does around the network runs operation by operation."""
        process, num_tokens = self.process.for_sampling(options), self.config.num_tokens(height, width)
        solver = process.make_sampler(options.sampler, options.num_steps, num_tokens)
        network = self.network.for_sampling(options)

        def step_fn(params, state, step, keys, condition, null, cfg_scale, is_guided):
            denoise = functools.partial(
                _denoise, network, self.mesh, options.cfg_channels, is_guided, params, condition, null, cfg_scale
            )
            return solver.step(denoise, state, step, keys)

        return solver, step_fn


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _denoise(network, mesh, cfg_channels, is_guided, params, condition, null, cfg_scale, x, times):
    denoise = functools.partial(make_apply(network), params)
    if is_guided:
        denoise = guided(denoise, condition, null, cfg_scale, cfg_channels)
    else:
        denoise = conditional(denoise, condition)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return denoise(x, times)


def draw(
    pipeline: LEDiTPipeline, size: Size, *, per_class: int, seed: int, options: SampleConfig, caption: str
) -> Samples:
    """`per_class` images of every class, one row of all classes after the other; `caption` opens the progress bar.

    Of a model of captions, the images of the first `per_class` held-out ones, whose numbers are the labels.
    """
    if pipeline.config.text.encoder == "none":
        labels = np.tile(np.arange(pipeline.config.model.num_classes), per_class)
        asked: list[Any] = labels.tolist()
    else:
        labels, asked = np.arange(per_class), held_out_captions(per_class)
    batches = pipeline.batches(
        asked,
        *size,
        options=options,
        seed=seed,
        batch_size=_BATCH_ON_CPU if jax.default_backend() == "cpu" else _BATCH,
        progress=f"{caption} {size_name(size)}",
    )
    return Samples(np.concatenate(list(batches)), labels)
