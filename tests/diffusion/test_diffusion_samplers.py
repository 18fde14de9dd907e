"""The samplers: their timesteps, their two loops, and the randomness of samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusion.smooth_network import SHAPE, denoise, start

from ledit_jax.diffusion import GaussianProcess
from ledit_jax.diffusion.gaussian import create_diffusion
from ledit_jax.diffusion.process import sample_keys, sample_loop, sample_noise
from ledit_jax.diffusion.samplers import DDIM, dpmpp_timesteps
from ledit_jax.errors import ConfigError

NAMES = ("ddpm", "ddim", "dpmpp")


def test_made_ddim_is_the_loop_of_the_even_chain():
    keys, noise = start()
    sampler = GaussianProcess().make_sampler("ddim", 12)
    expected = create_diffusion("12").ddim_sample_loop(denoise, noise)
    np.testing.assert_allclose(sample_loop(sampler, denoise, noise, keys), expected, rtol=1e-6)


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
