"""Samplers on data whose denoiser is known exactly: a mixture of Gaussians with the falling spectrum of images.

The exact solution of the probability flow ODE is the yardstick (Runge-Kutta in float64, in log-SNR).
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.mixture import BATCH, NOISE, SHAPE, D, exact

from ledit_jax.diffusion import GaussianProcess
from ledit_jax.diffusion.gaussian import create_diffusion
from ledit_jax.diffusion.process import sample_keys, sample_loop, sample_noise
from ledit_jax.diffusion.samplers import DDIM, DPMSolverPP, even_timesteps
from ledit_jax.diffusion.schedule import linear_alphas_cumprod, respace

ALPHA_BAR = linear_alphas_cumprod(1000, 1e-4, 0.02)
LOG_SNR = 0.5 * np.log(ALPHA_BAR / (1 - ALPHA_BAR))


def exact_xstart(x, log_snr, lib):
    """E[x0 | x] for x [B, D] at one log(alpha / sigma)."""
    alpha, sigma = 1 / lib.sqrt(1 + lib.exp(-2 * log_snr)), 1 / lib.sqrt(1 + lib.exp(2 * log_snr))
    return exact(x, alpha, sigma, lib)[0]


def denoise(x, timesteps):
    """Exact eps for a batch at one timestep, and v = 0."""
    alpha_bar = jnp.asarray(ALPHA_BAR, jnp.float32)[timesteps[0]]
    log_snr = jnp.asarray(LOG_SNR, jnp.float32)[timesteps[0]]
    flat = x.reshape(len(x), D)
    eps = (flat - jnp.sqrt(alpha_bar) * exact_xstart(flat, log_snr, jnp)) / jnp.sqrt(1 - alpha_bar)
    return jnp.concatenate([eps.reshape(x.shape), jnp.zeros_like(x)], axis=-1)


@functools.cache
def ode_solution():
    """x / sigma grows by exp(log_snr) E[x0 | x]; followed from t = 999 to t = 0, then denoised."""
    sigma = lambda log_snr: 1 / np.sqrt(1 + np.exp(2 * log_snr))  # noqa: E731
    slope = lambda log_snr, y: np.exp(log_snr) * exact_xstart(y * sigma(log_snr), log_snr, np)  # noqa: E731
    grid = np.linspace(LOG_SNR[-1], LOG_SNR[0], 501)
    y = NOISE.astype(np.float64) / sigma(grid[0])
    for low, high in itertools.pairwise(grid):
        h = high - low
        k1 = slope(low, y)
        k2 = slope(low + h / 2, y + h / 2 * k1)
        k3 = slope(low + h / 2, y + h / 2 * k2)
        k4 = slope(high, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return exact_xstart(y * sigma(grid[-1]), grid[-1], np)


def error(sampler):
    """Distance of the median sample from the ODE solution, root mean square over its dimensions."""
    noise = jnp.asarray(NOISE).reshape(BATCH, *SHAPE)
    x = jax.jit(lambda noise: sample_loop(sampler, denoise, noise, None))(noise)
    distance = np.sqrt(np.mean((np.asarray(x).reshape(BATCH, D) - ode_solution()) ** 2, axis=1))
    return np.median(distance)


def dpmpp_on(timesteps):
    return DPMSolverPP(respace(ALPHA_BAR, timesteps))


def test_dpmpp_with_25_steps_is_as_near_as_ddim_with_250():
    dpmpp = error(GaussianProcess().make_sampler("dpmpp", 25))
    ddim_250, ddim_25 = (error(GaussianProcess().make_sampler("ddim", n)) for n in (250, 25))
    assert dpmpp < ddim_250 < 0.01 < 0.03 < ddim_25


def test_dpmpp_spacing_beats_the_usual_ones():
    log_snrs = np.linspace(LOG_SNR[-1], LOG_SNR[0], 25)
    log_snr_uniform = np.rint(np.interp(log_snrs, LOG_SNR[::-1], np.arange(1000)[::-1])).astype(int)[::-1]
    ours = error(GaussianProcess().make_sampler("dpmpp", 25))
    assert ours < 0.8 * error(dpmpp_on(log_snr_uniform))
    assert ours < 0.2 * error(dpmpp_on(even_timesteps(1000, 25)))


@pytest.mark.parametrize("kind, order", [(DPMSolverPP, 2), (DDIM, 1)])
def test_order_of_convergence(kind, order):
    # One family of grids, all of which end at t = 0, so that the last step adds no error of its own.
    coarse, fine = (
        error(kind(respace(ALPHA_BAR, np.rint(999 * np.linspace(0, 1, n + 1) ** 2).astype(int)))) for n in (10, 31)
    )
    assert abs(np.log(coarse / fine) / np.log(3.1) - order) < 0.25


def test_samples_of_a_gaussian_have_its_moments():
    mean, deviation = 0.3, 0.5
    alpha_bar = jnp.asarray(ALPHA_BAR, jnp.float32)
    coarse = create_diffusion("20")
    # Given x_i, x_{i-1} is Gaussian here, so 20 ancestral steps are exact with its variance: eq. 7's for known x0,
    # and what x0 is uncertain by. v says where that lies in the learned range.
    a, previous = coarse.alphas_cumprod, coarse.alphas_cumprod_prev
    of_xstart = deviation**2 * (1 - a) / (a * deviation**2 + 1 - a)
    eq7 = coarse.betas * (1 - previous) / (1 - a)
    low, high = coarse.posterior_log_variance, np.log(coarse.betas)
    log_variance = np.log(eq7 + (np.sqrt(previous) * coarse.betas / (1 - a)) ** 2 * of_xstart)
    exact_v = np.zeros(1000)
    exact_v[coarse.timestep_map] = 2 * (log_variance - low) / (high - low) - 1

    def denoise_gaussian(x, timesteps):
        a = alpha_bar[timesteps].reshape(-1, 1, 1, 1)
        eps = jnp.sqrt(1 - a) * (x - jnp.sqrt(a) * mean) / (a * deviation**2 + 1 - a)
        v = jnp.asarray(exact_v, jnp.float32)[timesteps].reshape(-1, 1, 1, 1)
        return jnp.concatenate([eps, jnp.broadcast_to(v, x.shape)], axis=-1)

    keys = sample_keys(0, np.arange(64))
    noise = sample_noise(keys, (16, 16, 1))
    for x in (
        coarse.p_sample_loop(denoise_gaussian, noise, keys),
        create_diffusion("250").ddim_sample_loop(denoise_gaussian, noise),
        sample_loop(GaussianProcess().make_sampler("dpmpp", 25), denoise_gaussian, noise, keys),
    ):
        np.testing.assert_allclose([x.mean(), x.std()], [mean, deviation], atol=0.012)
