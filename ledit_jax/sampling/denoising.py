"""The program that sampling compiles: one denoising step of a config on a mesh."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from ledit_jax.config import Config
from ledit_jax.diffusion.guidance import conditional, guided
from ledit_jax.diffusion.samplers import Sampler, make_sampler
from ledit_jax.models.functional import make_apply


@functools.lru_cache(maxsize=16)
def make_denoising_step(
    config: Config, mesh: Mesh, sampler: str, num_steps: int, cfg_channels: str, rope_method: str
) -> tuple[Sampler, Callable[..., Any]]:
    """(sampler, step) for the settings of `SampleConfig`; the weights and the batch are placed on `mesh` already.

    step(params, state, step, keys, labels, cfg_scale, logit_scale, is_guided) -> state, one network call, jitted with
    `is_guided` static: an unguided step has no second half of the batch. It compiles once for each size, and the cache
    is the process's: another pipeline of the same config, with other weights for example, compiles nothing. Raises
    ConfigError for an unknown sampler.
    """
    is_pixels = config.autoencoder.kind == "none"
    solver = make_sampler(sampler, num_steps, diffusion=config.diffusion, clip_denoised=is_pixels)
    apply = make_apply(config)

    def step_fn(params, state, step, keys, labels, cfg_scale, logit_scale, is_guided):
        def denoise(x, t, y):
            return apply(params, x, t, y, logit_scale=logit_scale, rope_method=rope_method)

        if is_guided:
            denoiser = guided(denoise, labels, config.model.num_classes, cfg_scale, cfg_channels)
        else:
            denoiser = conditional(denoise, labels)
        # Which attention backend runs, and how a kernel is split, follows from the mesh in context.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return solver.step(denoiser, state, step, keys)

    return solver, jax.jit(step_fn, static_argnums=7)
