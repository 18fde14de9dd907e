"""The program that sampling compiles: one denoising step of a network along a process, on a mesh."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from ledit_jax.diffusion import Process, Sampler, conditional, guided
from ledit_jax.models import Network, make_apply


@functools.lru_cache(maxsize=16)
def make_denoising_step(
    network: Network, process: Process, mesh: Mesh, sampler: str, num_steps: int, num_tokens: int, cfg_channels: str
) -> tuple[Sampler, Callable[..., Any]]:
    """(sampler, step); the weights and the batch are placed on `mesh` already.

    step(params, state, step, keys, condition, null, cfg_scale, is_guided) -> state, one network call, jitted with
    `is_guided` static: an unguided step has no second half of the batch. null: the condition that guidance leads away
    from, such as `network.condition.null`. It compiles once for each size, and the cache is the
    process's: another pipeline of the same network, with other weights for example, compiles nothing.
    """
    solver, apply = process.make_sampler(sampler, num_steps, num_tokens), make_apply(network)

    def step_fn(params, state, step, keys, condition, null, cfg_scale, is_guided):
        denoise = functools.partial(apply, params)
        if is_guided:
            denoiser = guided(denoise, condition, null, cfg_scale, cfg_channels)
        else:
            denoiser = conditional(denoise, condition)
        # Which attention backend runs, and how a kernel is split, follows from the mesh in context.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return solver.step(denoiser, state, step, keys)

    return solver, jax.jit(step_fn, static_argnums=7)
