"""Each sampler against diffusers' scheduler over a whole chain, and the randomness of samples."""

import diffusers.schedulers.scheduling_ddpm
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from ledit_jax.diffusion import GaussianProcess
from ledit_jax.diffusion.gaussian import create_diffusion
from ledit_jax.diffusion.process import sample_keys, sample_loop, sample_noise
from ledit_jax.diffusion.samplers import DDIM, dpmpp_timesteps
from ledit_jax.errors import ConfigError

SHAPE = (2, 4, 3)
NAMES = ("ddpm", "ddim", "dpmpp")
BETAS = np.linspace(1e-4, 0.02, 1000)


def mix(x, t, lib):
    """A smooth nonlinear network that minds its input, its timestep and its neighbours."""
    shifted = 0.3 * lib.concatenate([x[:, :, 1:], x[:, :, :1]], 2)
    level = t.reshape(-1, 1, 1, 1) / 1000.0
    eps = lib.tanh(0.8 * x + shifted) + 0.2 * lib.sin(3 * level + x)
    return lib.concatenate([eps, lib.cos(x + 5 * level)], -1)


def denoise(x, timesteps):
    return mix(x, timesteps, jnp)


def denoise_for_diffusers(x, timestep):
    output = mix(np.moveaxis(x.numpy(), 1, -1), np.full(len(x), int(timestep)), np)
    return torch.tensor(np.moveaxis(output, -1, 1))


def start(num_samples=3, seed=0):
    keys = sample_keys(seed, np.arange(num_samples))
    return keys, sample_noise(keys, SHAPE)


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


def test_made_ddim_is_the_loop_of_the_even_chain():
    keys, noise = start()
    sampler = GaussianProcess().make_sampler("ddim", 12)
    expected = create_diffusion("12").ddim_sample_loop(denoise, noise)
    np.testing.assert_allclose(sample_loop(sampler, denoise, noise, keys), expected, rtol=1e-6)


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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_steps", [1, 2, 25, 250, 999, 1000])
def test_timesteps_are_distinct_descend_and_begin_at_noise(name, num_steps):
    sampler = GaussianProcess().make_sampler(name, num_steps)
    assert sampler.num_steps == num_steps and sampler.times.shape == (num_steps,)
    assert sampler.times[0] == 999 and sampler.times[-1] >= 0
    assert np.all(np.diff(sampler.times) < 0)


@pytest.mark.parametrize("num_timesteps", [1, 2, 3, 10, 37])
def test_timesteps_are_distinct_in_chains_of_any_length(num_timesteps):
    for num_steps in range(1, num_timesteps + 1):
        timesteps = dpmpp_timesteps(num_timesteps, num_steps)
        assert len(timesteps) == num_steps and timesteps[0] >= 0 and timesteps[-1] == num_timesteps - 1
        assert np.all(np.diff(timesteps) > 0)


@pytest.mark.parametrize("name", NAMES)
def test_sampler_has_the_configured_schedule(name):
    sampler = GaussianProcess(num_timesteps=40, beta_start=0.01, beta_end=0.3).make_sampler(name, 6)
    alphas_cumprod = np.cumprod(1 - np.linspace(0.01, 0.3, 40))
    np.testing.assert_allclose(sampler.chain.alphas_cumprod, alphas_cumprod[sampler.times[::-1]], rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_network_is_asked_at_the_timesteps_in_order(name):
    keys, noise = start()
    sampler, asked = GaussianProcess(num_timesteps=40).make_sampler(name, 6), []

    def spy(x, timesteps):
        asked.append(np.asarray(timesteps))
        return denoise(x, timesteps)

    state = sampler.init(noise)
    for step in range(sampler.num_steps):
        state = sampler.step(spy, state, step, keys)
    np.testing.assert_array_equal(asked, np.repeat(sampler.times[:, None], 3, axis=1))
    assert sampler.times[0] == 39


@pytest.mark.parametrize("name", NAMES)
def test_device_loop_is_the_host_loop(name):
    keys, noise = start()
    sampler = GaussianProcess().make_sampler(name, 8)
    one_step = jax.jit(lambda state, step, keys: sampler.step(denoise, state, step, keys))
    state = sampler.init(noise)
    for step in range(sampler.num_steps):
        state = one_step(state, step, keys)
    assert one_step._cache_size() == 1  # One program serves all steps.
    device = jax.jit(lambda noise, keys: sample_loop(sampler, denoise, noise, keys))(noise, keys)
    np.testing.assert_allclose(device, sampler.sample(state), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ddpm", "dpmpp"])
def test_a_sample_depends_on_its_own_key_alone(name):
    sampler = GaussianProcess().make_sampler(name, 8)
    loop = jax.jit(lambda noise, keys: sample_loop(sampler, denoise, noise, keys))

    def sample(seed, indices):
        keys = sample_keys(seed, np.array(indices))
        return np.asarray(loop(sample_noise(keys, SHAPE), keys))

    batch, others, alone = sample(3, [0, 1, 2]), sample(3, [2, 9, 1]), sample(3, [2])
    np.testing.assert_allclose(alone[0], batch[2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(others[[0, 2]], batch[[2, 1]], rtol=1e-5, atol=1e-5)
    assert np.abs(sample(4, [0, 1, 2]) - batch).max() > 0.1
    assert np.abs(batch[1] - batch[2]).max() > 0.1


def test_initial_noise_is_used_by_no_step():
    keys = sample_keys(0, np.arange(1))
    initial = np.asarray(sample_noise(keys, SHAPE))[0]
    steps = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(keys[0], i), SHAPE))(jnp.arange(1000))
    assert np.abs(steps - initial).max(axis=(1, 2, 3)).min() > 0.1


def test_initial_noise_is_standard_normal():
    noise = np.asarray(sample_noise(sample_keys(0, np.arange(64)), (16, 16, 1)))
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.03)
    assert np.abs(np.corrcoef(noise.reshape(64, -1)) - np.eye(64)).max() < 0.3


@pytest.mark.parametrize("num_steps", [1, 10])
def test_last_ddpm_step_adds_no_noise(num_steps):
    keys, noise = start()
    others = sample_keys(1, np.arange(3))
    sampler = GaussianProcess().make_sampler("ddpm", num_steps)
    last = [sampler.step(denoise, noise, num_steps - 1, k) for k in (keys, others)]
    np.testing.assert_array_equal(*last)
    if num_steps > 1:
        before = [sampler.step(denoise, noise, num_steps - 2, k) for k in (keys, others)]
        assert np.abs(before[0] - before[1]).max() > 0.01


@pytest.mark.parametrize(
    "name, num_steps, words",
    [
        ("dpmp", 10, ("sampler='dpmp'", "did you mean dpmpp?")),
        ("euler", 10, ("sampler='euler'", "ddim, ddpm, dpmpp")),
        ("ddpm", 1001, ("num_steps=1001", "diffusion.num_timesteps=1000", "1 to 1000")),
        ("dpmpp", 0, ("num_steps=0", "1 to 1000")),
    ],
)
def test_errors_name_the_value_and_the_remedy(name, num_steps, words):
    with pytest.raises(ConfigError) as error:
        GaussianProcess().make_sampler(name, num_steps)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_sampler_that_draws_noise_wants_keys():
    _, noise = start()
    for sampler in (GaussianProcess().make_sampler("ddpm", 4), DDIM(create_diffusion("4"), eta=0.5)):
        with pytest.raises(ValueError, match="one key per sample"):
            sample_loop(sampler, denoise, noise, None)
