"""Flow matching with the exact velocity: of the mixture of Gaussians, and where its flow leads."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from oracles.mixture import BATCH, NOISE, SHAPE, D, class_prior, exact

from ledit_jax.diffusion.interpolant import Interpolant
from ledit_jax.diffusion.process import Sampler, sample_loop


def exact_velocity(path, x, t, lib, log_prior=0.0):
    alpha, sigma, d_alpha, d_sigma = Interpolant(path).coefficients(t, lib)
    clean, noise = exact(x, alpha, sigma, lib, log_prior)
    return d_alpha * clean + d_sigma * noise


def guided_velocity(path, x, t, lib, scale):
    """Of classes in turn, guided by `scale` away from the whole mixture; 1 is the whole mixture unguided."""
    null = exact_velocity(path, x, t, lib)
    if scale == 1:
        return null
    labels = lib.arange(len(x)) % 2
    return null + scale * (exact_velocity(path, x, t, lib, class_prior(labels, lib)) - null)


def denoiser(path, scale=1):
    def denoise(x, times):
        return guided_velocity(path, x.reshape(len(x), D), times[0], jnp, scale).reshape(x.shape)

    return denoise


@functools.cache
def ode_solution(path, scale=1):
    """Runge-Kutta in float64 from noise to data."""
    x = NOISE.astype(np.float64)
    slope = functools.partial(guided_velocity, path, lib=np, scale=scale)
    for high, low in itertools.pairwise(np.linspace(1, 0, 401) ** 1.5):
        h = low - high
        k1 = slope(x, t=high)
        k2 = slope(x + h / 2 * k1, t=high + h / 2)
        k3 = slope(x + h / 2 * k2, t=high + h / 2)
        k4 = slope(x + h * k3, t=low)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def distance(sampler: Sampler, path: str, scale: float = 1) -> float:
    """Of the median sample from the solution, root mean square over its dimensions."""
    noise = jnp.asarray(NOISE).reshape(BATCH, *SHAPE)
    x = jax.jit(lambda noise: sample_loop(sampler, denoiser(path, scale), noise, None))(noise)
    return np.median(np.sqrt(np.mean((np.asarray(x).reshape(BATCH, D) - ode_solution(path, scale)) ** 2, axis=1)))
