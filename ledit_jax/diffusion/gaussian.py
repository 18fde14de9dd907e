"""Gaussian diffusion as DiT trains it: noise prediction with a learned-range variance, loss mse + vb.

The behaviour matched, constants and units included, is that of facebookresearch/DiT's `create_diffusion`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ledit_jax.diffusion.process import Denoiser, Images, Process, Sampler, sample_loop
from ledit_jax.diffusion.samplers import DDIM, DDPM, DPMSolverPP, dpmpp_timesteps, even_timesteps
from ledit_jax.diffusion.schedule import (
    ChainIndex,
    NoiseSchedule,
    gather,
    linear_alphas_cumprod,
    respace,
    space_timesteps,
)
from ledit_jax.errors import ConfigError, nearest

_SAMPLERS = {
    "ddpm": (DDPM, even_timesteps),
    "ddim": (DDIM, even_timesteps),
    "dpmpp": (DPMSolverPP, dpmpp_timesteps),
}
"""Each with the timesteps that it visits."""


@dataclass(frozen=True)
class GaussianProcess(Process):
    """DiT's diffusion: integer timesteps 0 .. num_timesteps - 1; the network predicts noise and variance (2C channels).

    clip_denoised: samplers clip each estimate of the clean data to [-1, 1]; for pixels, not for latents.
    """

    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    clip_denoised: bool = False

    @property
    def end_time(self) -> float:
        return float(self.num_timesteps)

    def out_channels(self, channels: int) -> int:
        return 2 * channels

    def draw_times(self, key: jax.Array, batch_size: int) -> Int[Array, " B"]:
        return jax.random.randint(key, (batch_size,), 0, self.num_timesteps)

    def add_noise(self, x0: Images, times: Int[Array, " B"], noise: Images) -> Images:
        return self._chain.q_sample(x0, times, noise)

    def training_losses(
        self, denoise: Denoiser, x0: Images, times: Int[Array, " B"], noise: Images
    ) -> dict[str, Float[Array, " B"]]:
        return self._chain.training_losses(denoise, x0, times, noise)

    def make_sampler(self, name: str, num_steps: int, num_tokens: int | None = None) -> Sampler:
        """ "ddpm", "ddim" (eta 0) or "dpmpp", with 1 to num_timesteps steps."""
        if name not in _SAMPLERS:
            raise ConfigError(f"sampler={name!r} is unknown: {nearest(name, _SAMPLERS)}")
        if not 1 <= num_steps <= self.num_timesteps:
            raise ConfigError(
                f"num_steps={num_steps} with diffusion.num_timesteps={self.num_timesteps}: "
                f"use 1 to {self.num_timesteps}"
            )
        kind, spacing = _SAMPLERS[name]
        timesteps = spacing(self.num_timesteps, num_steps)
        return kind(respace(self._chain.alphas_cumprod, timesteps), self.clip_denoised)

    @functools.cached_property
    def _chain(self) -> "GaussianDiffusion":
        return create_diffusion(num_timesteps=self.num_timesteps, beta_start=self.beta_start, beta_end=self.beta_end)


@dataclass(frozen=True, eq=False)
class GaussianDiffusion(NoiseSchedule):
    """A chain together with its losses and its ancestral loops. `t` and `i` are indices in the chain."""

    def training_losses(
        self, denoise: Denoiser, x0: Images, t: ChainIndex, noise: Images
    ) -> dict[str, Float[Array, " B"]]:
        """Loss of each sample, in float32: `loss` = `mse` + `vb`.

        `mse` is the mean squared error of the noise; `vb` the variational bound's term for t in bits per dimension,
        which trains the variance only: no gradient of it reaches the noise estimate (arXiv 2102.09672, section 3.1).
        """
        x = self.q_sample(x0, t, noise)
        eps, v = self.predict_noise(denoise, x, t)
        mse = jnp.mean((noise - eps) ** 2, axis=(1, 2, 3))
        vb = self._variational_bound(x0, x, t, jax.lax.stop_gradient(eps), v)
        return {"loss": mse + vb, "mse": mse, "vb": vb}

    def p_mean_variance(
        self, denoise: Denoiser, x: Images, i: ChainIndex, clip_denoised: bool = False
    ) -> dict[str, Images]:
        """The Gaussian p(x_{i-1} | x_i = x): `mean`, `variance`, `log_variance`, and the `pred_xstart` behind it."""
        eps, v = self.predict_noise(denoise, x, i)
        pred_xstart = self.predict_xstart(x, i, eps, clip_denoised)
        log_variance = self.model_log_variance(v, i)
        return {
            "mean": self.posterior_mean(pred_xstart, x, i),
            "variance": jnp.exp(log_variance),
            "log_variance": log_variance,
            "pred_xstart": pred_xstart,
        }

    def p_sample_loop(
        self, denoise: Denoiser, noise: Images, keys: Key[Array, " B"], clip_denoised: bool = False
    ) -> Images:
        """Ancestral sampling over this chain, from standard normal `noise`."""
        return sample_loop(DDPM(self, clip_denoised), denoise, noise, keys)

    def ddim_sample_loop(
        self,
        denoise: Denoiser,
        noise: Images,
        keys: Key[Array, " B"] | None = None,
        eta: float = 0.0,
        clip_denoised: bool = False,
    ) -> Images:
        """DDIM over this chain, from standard normal `noise`. Raises ValueError if eta > 0 and there are no keys."""
        return sample_loop(DDIM(self, clip_denoised, eta), denoise, noise, keys)

    def _variational_bound(self, x0: Images, x: Images, t: ChainIndex, eps: Images, v: Images) -> Float[Array, " B"]:
        """KL(q(x_{t-1} | x_t, x0) || p) for t > 0, -log p(x0 | x_1) for t = 0; mean over dimensions, in bits."""
        mean = self.posterior_mean(self.predict_xstart(x, t, eps), x, t)
        log_variance = self.model_log_variance(v, t)
        true_mean = self.posterior_mean(x0, x, t)
        kl = normal_kl(true_mean, gather(self.posterior_log_variance, t), mean, log_variance)
        nll = -discretized_gaussian_log_likelihood(x0, mean, 0.5 * log_variance)
        first = jnp.reshape(jnp.asarray(t) == 0, (-1, 1, 1, 1))
        return jnp.mean(jnp.where(first, nll, kl), axis=(1, 2, 3)) / np.log(2.0)


def create_diffusion(
    timestep_respacing: str | Sequence[int] | None = "",
    *,
    num_timesteps: int = 1000,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
) -> GaussianDiffusion:
    """DiT's diffusion over the timesteps that `timestep_respacing` keeps ("", "250", "10,10,20", "ddim50").

    Raises ConfigError for a respacing that is not understood or does not fit (see `space_timesteps`), an empty
    chain, or betas outside (0, 1).
    """
    alphas_cumprod = linear_alphas_cumprod(num_timesteps, beta_start, beta_end)
    timesteps = space_timesteps(num_timesteps, timestep_respacing)
    return GaussianDiffusion(timesteps, alphas_cumprod[timesteps])


def normal_kl(
    mean1: Float[Array, "..."], logvar1: Float[Array, "..."], mean2: Float[Array, "..."], logvar2: Float[Array, "..."]
) -> Float[Array, "..."]:
    """KL(N(mean1, exp(logvar1)) || N(mean2, exp(logvar2))) in nats, element by element; shapes broadcast."""
    difference = logvar1 - logvar2
    # expm1: for near-equal variances exp(d) - 1 - d would be rounding error alone.
    return 0.5 * (jnp.expm1(difference) - difference + (mean1 - mean2) ** 2 * jnp.exp(-logvar2))


def discretized_gaussian_log_likelihood(x: Images, means: Images, log_scales: Images) -> Images:
    """Log-probability in nats of the bin of half-width 1/255 around x, under N(means, exp(log_scales)^2).

    x is data in [-1, 1]: bins beyond +-0.999 are open outwards. As in DiT, the normal CDF is its tanh approximation
    (off by at most 3e-4) and probabilities are held above 1e-12; latents, which exceed 1, are treated no differently.
    """
    inverse_scales = jnp.exp(-log_scales)
    cdf_upper = _approximate_normal_cdf((x - means + 1.0 / 255.0) * inverse_scales)
    cdf_lower = _approximate_normal_cdf((x - means - 1.0 / 255.0) * inverse_scales)
    probability = jnp.where(x < -0.999, cdf_upper, jnp.where(x > 0.999, 1.0 - cdf_lower, cdf_upper - cdf_lower))
    return jnp.log(jnp.maximum(probability, 1e-12))


def _approximate_normal_cdf(x: Images) -> Images:
    return 0.5 * (1.0 + jnp.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
