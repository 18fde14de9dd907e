"""Generative processes around a denoiser function: losses, samplers and guidance. Knows no models or data."""

from ledit_jax.config import Config
from ledit_jax.diffusion.gaussian import GaussianDiffusion, GaussianProcess, create_diffusion
from ledit_jax.diffusion.guidance import conditional, drop_condition, guidance_mask, guided
from ledit_jax.diffusion.process import Process, Sampler, sample_keys, sample_loop, sample_noise

__all__ = [
    "GaussianDiffusion",
    "GaussianProcess",
    "Process",
    "Sampler",
    "conditional",
    "create_diffusion",
    "drop_condition",
    "guidance_mask",
    "guided",
    "make_process",
    "sample_keys",
    "sample_loop",
    "sample_noise",
]


def make_process(config: Config) -> Process:
    """The process that an experiment trains."""
    schedule = config.diffusion
    return GaussianProcess(
        schedule.num_timesteps,
        schedule.beta_start,
        schedule.beta_end,
        clip_denoised=config.autoencoder.kind == "none",
    )
