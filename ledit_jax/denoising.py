"""The program that sampling compiles: one denoising step of a config on a mesh."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from ledit_jax.config import Config
from ledit_jax.diffusion.samplers import Sampler, make_sampler
from ledit_jax.diffusion.step import make_sample_step
from ledit_jax.models.functional import make_apply


@functools.lru_cache(maxsize=16)
def make_denoising_step(
    config: Config, mesh: Mesh, sampler: str, num_steps: int, cfg_channels: str, rope_method: str
) -> tuple[Sampler, Callable[..., Any]]:
    """(sampler, step) for the settings of `SampleConfig`; the weights and the batch are placed on `mesh` already.

    step(params, state, step, keys, labels, cfg_scale, logit_scale, is_guided) -> state, jitted with `is_guided` static.
    It compiles once for each size, and the cache is the process's: another pipeline of the same config, with other
    weights for example, compiles nothing. Raises ConfigError for an unknown sampler.
    """
    is_pixels = config.autoencoder.kind == "none"
    solver = make_sampler(sampler, num_steps, diffusion=config.diffusion, clip_denoised=is_pixels)
    step_fn = make_sample_step(make_apply(config), solver, config.model.num_classes, cfg_channels, rope_method)

    def step_on_mesh(*args):
        # Which attention backend runs, and how a kernel is split, follows from the mesh in context.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return step_fn(*args)

    return solver, jax.jit(step_on_mesh, static_argnums=7)
