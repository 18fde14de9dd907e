"""A flow's samplers on data whose velocity is known exactly, and against diffusers' schedulers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from oracles.exact_flow import denoiser, distance, exact_velocity
from oracles.mixture import BATCH, NOISE, SHAPE, D

from ledit_jax.diffusion import FlowProcess
from ledit_jax.diffusion.flow_samplers import FlowSampler
from ledit_jax.diffusion.interpolant import Interpolant, shift_times
from ledit_jax.diffusion.process import sample_keys, sample_loop, sample_noise, step_noise
from ledit_jax.diffusion.samplers import multistep_table
from ledit_jax.errors import ConfigError


@pytest.mark.parametrize("path", ["linear", "gvp"])
@pytest.mark.parametrize("name, order", [("euler", 1), ("heun", 2), ("ab2", 2), ("dpmpp", 2)])
def test_order_of_convergence(name, order, path):
    coarse, fine = (distance(FlowProcess(path).make_sampler(name, n), path) for n in (24, 96))
    assert abs(np.log(coarse / fine) / np.log(4) - order) < 0.35, (coarse, fine)


def test_second_order_is_better_at_25_calls():
    euler, heun, ab2, dpmpp = (
        distance(FlowProcess().make_sampler(name, 25), "linear") for name in ("euler", "heun", "ab2", "dpmpp")
    )
    assert 1.5 * ab2 < dpmpp < 0.6 * heun < euler


MEAN, DEVIATION = 0.3, 0.5


def of_a_gaussian(path):
    def denoise(x, times):
        alpha, sigma, d_alpha, d_sigma = Interpolant(path).coefficients(times[0], jnp)
        residual = (x - alpha * MEAN) / (alpha**2 * DEVIATION**2 + sigma**2)
        return d_alpha * (MEAN + alpha * DEVIATION**2 * residual) + d_sigma * sigma * residual

    return denoise


@pytest.mark.parametrize("path", ["linear", "gvp"])
@pytest.mark.parametrize("diffusion", ["sigma", "sbdm", "increasing_decreasing"])
class TestTheSDE:
    def test_it_has_the_moments_of_a_gaussian(self, path, diffusion):
        keys = sample_keys(0, np.arange(64))
        sampler = FlowProcess(path, sde_diffusion=diffusion).make_sampler("sde", 250)
        x = sample_loop(sampler, of_a_gaussian(path), sample_noise(keys, (16, 16, 1)), keys)
        np.testing.assert_allclose([x.mean(), x.std()], [MEAN, DEVIATION], atol=0.02)

    def test_its_weak_order_is_one(self, path, diffusion):
        """The deviation where the last step begins; a step of a Gaussian is a x + b + c noise, read off by probes."""

        def error(count):
            sampler = FlowProcess(path, sde_diffusion=diffusion).make_sampler("sde", count)
            keys, probes = sample_keys(0, np.array([0, 0, 1])), jnp.array([0.0, 1.0, 0.0]).reshape(3, 1, 1, 1)
            step = jax.jit(lambda i: sampler.step(of_a_gaussian(path), probes, i, keys).ravel())
            variance = 1.0
            for i in range(count - 1):
                out, noise = (np.asarray(x, np.float64) for x in (step(i), step_noise(keys, i, (1, 1, 1)).ravel()))
                variance *= (out[1] - out[0]) ** 2
                variance += ((out[0] - out[2]) / (noise[0] - noise[2])) ** 2
            alpha, sigma, _, _ = Interpolant(path).coefficients(sampler.times[-1])
            return abs(np.sqrt(variance) - np.sqrt(alpha**2 * DEVIATION**2 + sigma**2))

        assert abs(np.log(error(65) / error(257)) / np.log(4) - 1) < 0.25


def run_diffusers(scheduler, sigmas_of_calls):
    x = torch.from_numpy(NOISE).double()
    asked = []
    for t in scheduler.timesteps:
        asked.append(float(t) / 1000)
        x = scheduler.step(torch.from_numpy(exact_velocity("linear", x.numpy(), asked[-1], np)), t, x).prev_sample
    np.testing.assert_allclose(asked, sigmas_of_calls, atol=2e-6)
    return x.numpy()


def ours(name, num_steps, shift):
    sampler = FlowProcess(time_shift=str(shift)).make_sampler(name, num_steps)
    noise = jnp.asarray(NOISE).reshape(BATCH, *SHAPE)
    x = jax.jit(lambda noise: sample_loop(sampler, denoiser("linear"), noise, None))(noise)
    return sampler, np.asarray(x).reshape(BATCH, D)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_is_diffusers(shift):
    sampler, x = ours("euler", 12, shift)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, 13)[:-1])
    np.testing.assert_allclose(x, run_diffusers(scheduler, sampler.times), atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_heun_is_diffusers(shift):
    """diffusers' goes to data by one call, so it takes an odd number of calls."""
    sampler, x = ours("heun", 13, shift)
    scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(7)
    own = shift_times(np.linspace(1, scheduler.sigma_min, 7), shift)
    np.testing.assert_allclose(scheduler.sigmas[[0, *range(1, 13, 2)]], own, rtol=1e-6)
    # Its own spacing ends at 1 / 1000, ours at an equal share of the way: the same steps are made at our times.
    scheduler.sigmas = torch.from_numpy(np.append(np.append(sampler.times[:1], np.repeat(sampler.times[2::2], 2)), 0.0))
    scheduler.timesteps = 1000 * torch.from_numpy(sampler.times)
    np.testing.assert_allclose(x, run_diffusers(scheduler, sampler.times), atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # torch in diffusers' arithmetic
def test_dpmpp_is_diffusers():
    """From just below pure noise: there, its log-SNR is minus infinity, of which diffusers makes NaN."""
    nodes = np.linspace(0.999, 0, 13)[:-1]
    process = FlowProcess()
    sampler = FlowSampler(nodes, multistep_table(1 - nodes, nodes), process.clean)
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, lower_order_final=False, euler_at_final=True
    )
    scheduler.set_timesteps(12)
    scheduler.sigmas, scheduler.timesteps = torch.from_numpy(np.append(nodes, 0.0)), 1000 * torch.from_numpy(nodes)
    noise = jnp.asarray(NOISE).reshape(BATCH, *SHAPE)
    x = jax.jit(lambda noise: sample_loop(sampler, denoiser("linear"), noise, None))(noise)
    np.testing.assert_allclose(x.reshape(BATCH, D), run_diffusers(scheduler, nodes), atol=1e-4)


def test_auto_shifts_by_the_root_of_the_tokens():
    process = FlowProcess(time_shift="auto", base_tokens=64)
    grid = process.make_sampler("euler", 4, num_tokens=256).times
    np.testing.assert_allclose(grid, [1.0, 6 / 7, 2 / 3, 2 / 5])
    np.testing.assert_allclose(process.make_sampler("euler", 4, num_tokens=64).times, [1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(
    "name, fields, steps, words",
    [
        ("ddim", {}, 10, "sampler='ddim' is none of this flow's"),
        ("meanflow", {}, 10, "none of this flow's"),
        ("euler", {}, 0, "num_steps=0 must be greater than 0"),
        ("euler", {"time_shift": "-1"}, 4, "time_shift='-1' must be none, auto or a number"),
        ("euler", {"path": "curved"}, 4, "flow.path='curved' is unknown"),
    ],
)
def test_refusals_are_one_line(name, fields, steps, words):
    with pytest.raises(ConfigError, match=words) as error:
        FlowProcess(**fields).make_sampler(name, steps)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["euler", "heun", "ab2", "dpmpp", "sde"])
def test_a_sample_depends_on_its_own_key_alone(name):
    sampler = FlowProcess().make_sampler(name, 7)
    draw = jax.jit(lambda noise, keys: sample_loop(sampler, denoiser("linear"), noise, keys))
    keys = sample_keys(3, np.arange(4))
    whole = draw(sample_noise(keys, SHAPE), keys)
    part = draw(sample_noise(keys[2:], SHAPE), keys[2:])
    np.testing.assert_allclose(whole[2:], part, atol=1e-6)
