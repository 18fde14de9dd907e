"""DDPM, DDIM and DPM-Solver++(2M): objects of pure functions, driven by a host loop or by `sample_loop` on device.

Also the randomness of sampling. Every sample has a key of its own, so that it does not depend on its batch.
"""

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ledit_jax.config import DiffusionConfig
from ledit_jax.diffusion.schedule import (
    Denoiser,
    NoiseSchedule,
    gather,
    linear_alphas_cumprod,
    respace,
    space_timesteps,
)
from ledit_jax.errors import ConfigError, nearest

Images = Float[Array, "B H W C"]
Step = Int[Array, ""] | int
"""Number of network calls made so far: 0 .. num_steps - 1 in visiting order. May be traced."""

# fold_in data of the initial noise. Chain steps fold in their index, which never comes near.
_INITIAL_NOISE = 2**31 - 1


def sample_keys(seed: int, indices: Int[Array, " B"] | Int[np.ndarray, " B"]) -> Key[Array, " B"]:
    """The key of each sample, from the seed and the sample's own index in the whole run."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), jnp.asarray(indices))


def sample_noise(keys: Key[Array, " B"], shape: tuple[int, int, int]) -> Images:
    """Standard normal noise to start from, one draw of shape (H, W, C) for each key."""
    return _normal(keys, _INITIAL_NOISE, shape)


@functools.partial(jax.jit, static_argnums=2)
def _normal(keys: Key[Array, " B"], data: Step, shape: tuple[int, ...]) -> Images:
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, data), shape))(keys)


@dataclass(frozen=True, eq=False)
class Sampler(ABC):
    """A way through `chain` from its noisiest element to clean data, one network call per element.

    All methods are pure: `init` makes the state (a pytree), `step` advances it and `sample` reads the image off
    the final one. `clip_denoised` clips each estimate of the clean data to [-1, 1]; leave it off for latents.
    """

    chain: NoiseSchedule
    clip_denoised: bool = False

    @property
    def num_steps(self) -> int:
        """Network calls per sample."""
        return self.chain.num_timesteps

    @property
    def timesteps(self) -> Int[np.ndarray, " num_steps"]:
        """Original timesteps in visiting order (descending): what the network is fed."""
        return self.chain.timestep_map[::-1]

    def init(self, noise: Images) -> Any:
        """State before step 0, from standard normal noise."""
        return noise

    @abstractmethod
    def step(self, denoise: Denoiser, state: Any, step: Step, keys: Key[Array, " B"] | None) -> Any:
        """State after network call `step`. Samplers that draw no noise ignore `keys`."""

    def sample(self, state: Any) -> Images:
        """The sample, once all steps are done; before that, the noisy image."""
        return state


class DDPM(Sampler):
    """Ancestral sampling with the learned variance (Ho et al. 2020, algorithm 2); the last step adds no noise."""

    def step(self, denoise: Denoiser, state: Images, step: Step, keys: Key[Array, " B"] | None) -> Images:
        """One draw from p(x_{i-1} | x_i). Raises ValueError without keys."""
        i = self.num_steps - 1 - step
        eps, v = self.chain.predict_noise(denoise, state, i)
        xstart = self.chain.predict_xstart(state, i, eps, self.clip_denoised)
        deviation = jnp.exp(0.5 * self.chain.model_log_variance(v, i))
        noise = _normal(_required(keys), i, state.shape[1:])
        return self.chain.posterior_mean(xstart, state, i) + jnp.where(i > 0, deviation, 0.0) * noise


@dataclass(frozen=True, eq=False)
class DDIM(Sampler):
    """DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16). `eta` 0 is deterministic, 1 has DDPM's noise."""

    eta: float = 0.0

    def step(self, denoise: Denoiser, state: Images, step: Step, keys: Key[Array, " B"] | None) -> Images:
        """One step of eq. 12. Raises ValueError if eta > 0 and there are no keys."""
        i = self.num_steps - 1 - step
        eps, _ = self.chain.predict_noise(denoise, state, i)
        xstart = self.chain.predict_xstart(state, i, eps)
        alpha_bar, alpha_bar_prev = self.chain.alphas_cumprod, self.chain.alphas_cumprod_prev
        if self.clip_denoised:
            xstart = jnp.clip(xstart, -1.0, 1.0)
            # The noise that takes the clipped estimate to the present state.
            eps = (state - gather(np.sqrt(alpha_bar), i) * xstart) / gather(np.sqrt(1.0 - alpha_bar), i)
        sigma = self.eta * np.sqrt((1.0 - alpha_bar_prev) / (1.0 - alpha_bar) * self.chain.betas)
        direction = np.sqrt(np.maximum(1.0 - alpha_bar_prev - sigma**2, 0.0))
        mean = gather(np.sqrt(alpha_bar_prev), i) * xstart + gather(direction, i) * eps
        if self.eta == 0.0:
            return mean
        return mean + gather(sigma, i) * _normal(_required(keys), i, state.shape[1:])


class DPMSolverPP(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2): second order, one network call per step.

    The state is (x, the previous estimate of the clean data). The first step, which has no previous estimate, and
    the last, which goes all the way to clean data (log-SNR infinity), are of first order. The variance is not used.
    """

    def init(self, noise: Images) -> tuple[Images, Images]:
        """State before step 0; its second part is not read."""
        return noise, jnp.zeros_like(noise)

    def step(
        self, denoise: Denoiser, state: tuple[Images, Images], step: Step, keys: Key[Array, " B"] | None
    ) -> tuple[Images, Images]:
        """x <- a x + b xstart + c previous xstart, with the coefficients of `_coefficients`."""
        x, previous = state
        i = self.num_steps - 1 - step
        eps, _ = self.chain.predict_noise(denoise, x, i)
        xstart = self.chain.predict_xstart(x, i, eps, self.clip_denoised)
        a, b, c = (gather(table, step) for table in self._coefficients)
        return a * x + b * xstart + c * previous, xstart

    def sample(self, state: tuple[Images, Images]) -> Images:
        """The first part of the state."""
        return state[0]

    @functools.cached_property
    def _coefficients(self) -> Float[np.ndarray, "3 num_steps"]:
        alpha_bar = self.chain.alphas_cumprod[::-1]
        alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar)
        h = np.diff(np.log(alpha / sigma))
        # The extrapolation of the clean data by half a step, (1 + 1/2r) xstart - 1/2r previous, r = h[k-1] / h[k].
        extrapolation = np.append(0.0, h[1:] / (2.0 * h[:-1]))[: len(h)]
        gain = -alpha[1:] * np.expm1(-h)
        return np.stack(
            [
                np.append(sigma[1:] / sigma[:-1], 0.0),
                np.append(gain * (1.0 + extrapolation), 1.0),
                np.append(-gain * extrapolation, 0.0),
            ]
        )


def make_sampler(name: str, num_steps: int, *, diffusion: DiffusionConfig, clip_denoised: bool = False) -> Sampler:
    """The sampler "ddpm", "ddim" (eta 0) or "dpmpp" with `num_steps` network calls.

    Raises ConfigError for another name, or unless 1 <= num_steps <= diffusion.num_timesteps.
    """
    makers = {"ddpm": (DDPM, even_timesteps), "ddim": (DDIM, even_timesteps), "dpmpp": (DPMSolverPP, dpmpp_timesteps)}
    if name not in makers:
        raise ConfigError(f"sampler={name!r} is unknown: {nearest(name, makers)}")
    if not 1 <= num_steps <= diffusion.num_timesteps:
        raise ConfigError(
            f"num_steps={num_steps} with diffusion.num_timesteps={diffusion.num_timesteps}: "
            f"use 1 to {diffusion.num_timesteps}"
        )
    kind, spacing = makers[name]
    alphas_cumprod = linear_alphas_cumprod(diffusion.num_timesteps, diffusion.beta_start, diffusion.beta_end)
    return kind(respace(alphas_cumprod, spacing(diffusion.num_timesteps, num_steps)), clip_denoised)


def even_timesteps(num_timesteps: int, num_steps: int) -> Int[np.ndarray, " num_steps"]:
    """Evenly spread from the first timestep to the last, as the respacing "250" of DiT's published numbers."""
    if num_steps == 1:  # The respacing "1" keeps timestep 0 alone, and sampling has to begin at noise.
        return np.array([num_timesteps - 1])
    return space_timesteps(num_timesteps, str(num_steps))


def dpmpp_timesteps(num_timesteps: int, num_steps: int) -> Int[np.ndarray, " num_steps"]:
    """Quadratic in time: (T - 1) (k / num_steps)^2 for k = 1 .. num_steps, ascending, rounded and kept distinct.

    The other spacings of the field are uniform in t, which spends too little on the low noise that decides detail,
    and uniform in log-SNR, which spends too little on the high noise that guidance makes stiff. Root mean square
    distance from the exact ODE solution at 25 steps, for a 20-component mixture in 64 dimensions whose standard
    deviations fall as 1/k (images do): 0.035, 0.023 and, for this one, 0.009 at cfg_scale 4; 0.040, 0.029 and
    0.015 without labels. DDIM with 250 steps is off by 0.006 and 0.013. The tests hold a
    smaller mixture to the same order.
    """
    k = np.arange(num_steps)
    timesteps = np.rint((num_timesteps - 1) * ((k + 1) / num_steps) ** 2).astype(int)
    # Where rounding made neighbours equal, push them up. The last one, T - 1, never has to move.
    return np.maximum.accumulate(timesteps - k) + k


def sample_loop(sampler: Sampler, denoise: Denoiser, noise: Images, keys: Key[Array, " B"] | None) -> Images:
    """All steps in one device program: the sample that grew from standard normal `noise`."""
    state = jax.lax.fori_loop(
        0, sampler.num_steps, lambda step, state: sampler.step(denoise, state, step, keys), sampler.init(noise)
    )
    return sampler.sample(state)


def _required(keys: Key[Array, " B"] | None) -> Key[Array, " B"]:
    if keys is None:
        raise ValueError("keys=None, and this sampler draws noise: pass one key per sample (see sample_keys)")
    return keys
