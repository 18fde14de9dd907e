"""Diffusion around a denoiser function: schedule, training losses, samplers and guidance. Knows no models or data."""

from ledit_jax.diffusion.gaussian import GaussianDiffusion, create_diffusion
from ledit_jax.diffusion.guidance import conditional, guidance_mask, guided
from ledit_jax.diffusion.samplers import Sampler, make_sampler, sample_keys, sample_loop, sample_noise

__all__ = [
    "GaussianDiffusion",
    "Sampler",
    "conditional",
    "create_diffusion",
    "guidance_mask",
    "guided",
    "make_sampler",
    "sample_keys",
    "sample_loop",
    "sample_noise",
]
