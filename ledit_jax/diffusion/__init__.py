"""Generative processes around a denoiser function: losses, samplers and guidance. Knows no models or data."""

from ledit_jax.config import Config, resolve_shift
from ledit_jax.diffusion.flow import FlowProcess
from ledit_jax.diffusion.gaussian import GaussianDiffusion, GaussianProcess, create_diffusion
from ledit_jax.diffusion.guidance import conditional, drop_condition, guidance_mask, guided
from ledit_jax.diffusion.process import Process, Sampler, sample_keys, sample_loop, sample_noise

__all__ = [
    "FlowProcess",
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
    clip_denoised = config.autoencoder.kind == "none"
    if config.diffusion.objective == "flow":
        return _make_flow(config, clip_denoised)
    schedule = config.diffusion
    return GaussianProcess(
        schedule.num_timesteps,
        schedule.beta_start,
        schedule.beta_end,
        clip_denoised=clip_denoised,
    )


def _make_flow(config: Config, clip_denoised: bool) -> FlowProcess:
    flow, num_tokens = config.flow, config.num_tokens()
    base_tokens = flow.base_tokens or num_tokens
    return FlowProcess(
        flow.path,
        flow.times,
        flow.times_mean,
        flow.times_std,
        resolve_shift(flow.time_shift, num_tokens, base_tokens),
        flow.time_scale,
        flow.convention,
        flow.mean_flow_share,
        base_tokens,
        clip_denoised=clip_denoised,
    )
