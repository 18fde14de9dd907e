"""One step of sampling as a pure function of weights and state: what the pipeline compiles."""

from collections.abc import Callable
from typing import Any

import jax

from ledit_jax.diffusion.guidance import conditional, guided
from ledit_jax.diffusion.samplers import Sampler


def make_sample_step(
    apply: Callable[..., jax.Array], sampler: Sampler, null_label: int, cfg_channels: str, rope_method: str
) -> Callable[..., Any]:
    """step(params, state, step, keys, labels, cfg_scale, logit_scale, is_guided) -> state, one network call.

    To be jitted with `is_guided` static: an unguided step has no second half of the batch. The network is
    apply(params, x, timesteps, labels, logit_scale=, rope_method=).
    """

    def step_fn(params, state, step, keys, labels, cfg_scale, logit_scale, is_guided):
        def denoise(x, t, y):
            return apply(params, x, t, y, logit_scale=logit_scale, rope_method=rope_method)

        if is_guided:
            denoiser = guided(denoise, labels, null_label, cfg_scale, cfg_channels)
        else:
            denoiser = conditional(denoise, labels)
        return sampler.step(denoiser, state, step, keys)

    return step_fn
