"""Each sampler against diffusers' scheduler over a whole chain."""

import diffusers.schedulers.scheduling_ddpm
import jax
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusion.smooth_network import SHAPE, denoise, mix, start

from ledit_jax.diffusion import GaussianProcess
from ledit_jax.diffusion.gaussian import create_diffusion
from ledit_jax.diffusion.process import sample_loop

BETAS = np.linspace(1e-4, 0.02, 1000)


def denoise_for_diffusers(x, timestep):
    output = mix(np.moveaxis(x.numpy(), 1, -1), np.full(len(x), int(timestep)), np)
    return torch.tensor(np.moveaxis(output, -1, 1))


def step_noise(keys, i):
    """The documented rule, written out: sample b at chain step i draws from fold_in(keys[b], i)."""
    noise = np.stack([jax.random.normal(jax.random.fold_in(key, i), SHAPE) for key in keys])
    return torch.tensor(np.moveaxis(noise, -1, 1), dtype=torch.float64)


def run_diffusers(scheduler, noise, step):
    """The whole chain in float64; `step(scheduler, output, timestep, x, i)` is one call of scheduler.step."""
    x = torch.tensor(np.moveaxis(np.asarray(noise, np.float64), -1, 1))
    for k, timestep in enumerate(scheduler.timesteps):
        output = denoise_for_diffusers(x, timestep)
        x = step(scheduler, output, timestep, x, len(scheduler.timesteps) - 1 - k).prev_sample
    return np.moveaxis(x.numpy(), 1, -1)


def in_float64(scheduler):
    scheduler.alphas_cumprod = torch.tensor(np.cumprod(1 - BETAS))
    for name in ("one", "final_alpha_cumprod"):
        setattr(scheduler, name, torch.tensor(1.0, dtype=torch.float64))
    return scheduler


@pytest.mark.parametrize("num_steps, clip, made", [(2, False, True), (10, False, False), (25, True, True)])
def test_ddpm_is_diffusers(num_steps, clip, made, monkeypatch):
    keys, noise = start()
    scheduler = in_float64(
        DDPMScheduler(1000, variance_type="learned_range", clip_sample=clip, timestep_spacing="linspace")
    )
    scheduler.set_timesteps(num_steps)

    def step(scheduler, output, timestep, x, i):
        drawn = step_noise(keys, i)
        monkeypatch.setattr(diffusers.schedulers.scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: drawn)
        return scheduler.step(output, timestep, x)

    expected = run_diffusers(scheduler, noise, step)
    if made:
        sampler = GaussianProcess(clip_denoised=clip).make_sampler("ddpm", num_steps)
        np.testing.assert_array_equal(sampler.times, scheduler.timesteps)
        ours = sample_loop(sampler, denoise, noise, keys)
    else:
        ours = create_diffusion(str(num_steps)).p_sample_loop(denoise, noise, keys, clip_denoised=clip)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("clip", [False, True])
def test_ddim_is_diffusers(eta, clip):
    keys, noise = start()
    scheduler = in_float64(DDIMScheduler(1000, clip_sample=clip, timestep_spacing="leading"))
    scheduler.set_timesteps(20)

    def step(scheduler, output, timestep, x, i):
        return scheduler.step(
            output[:, :3], timestep, x, eta=eta, use_clipped_model_output=True, variance_noise=step_noise(keys, i)
        )

    expected = run_diffusers(scheduler, noise, step)
    diffusion = create_diffusion("ddim20")
    ours = diffusion.ddim_sample_loop(denoise, noise, keys if eta else None, eta=eta, clip_denoised=clip)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=5e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # torch in diffusers' arithmetic
@pytest.mark.parametrize("num_steps, clip", [(1, False), (2, False), (7, False), (25, True)])
def test_dpmpp_is_diffusers(num_steps, clip):
    keys, noise = start()
    sampler = GaussianProcess(clip_denoised=clip).make_sampler("dpmpp", num_steps)
    scheduler = in_float64(
        DPMSolverMultistepScheduler(
            1000, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", lower_order_final=False
        )
    )
    scheduler.set_timesteps(timesteps=sampler.times.copy())
    # Its own are float32.
    alpha_bar = np.cumprod(1 - BETAS)[sampler.times]
    scheduler.sigmas = torch.tensor(np.append(np.sqrt((1 - alpha_bar) / alpha_bar), 0.0))
    if clip:
        convert = scheduler.convert_model_output
        scheduler.convert_model_output = lambda output, sample: convert(output, sample=sample).clamp(-1, 1)

    def step(scheduler, output, timestep, x, i):
        return scheduler.step(output[:, :3].double(), timestep, x)

    expected = run_diffusers(scheduler, noise, step)
    np.testing.assert_allclose(sample_loop(sampler, denoise, noise, keys), expected, rtol=1e-4, atol=2e-3)
