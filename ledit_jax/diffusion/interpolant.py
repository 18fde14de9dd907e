"""Straight and curved paths between data and noise, and what follows from a velocity along them.

Time t is noise-time: 0 is data, 1 is noise. A path has x_t = alpha x0 + sigma noise, and its velocity is
dx/dt = alpha' x0 + sigma' noise (SiT, arXiv 2401.08740, section 2). Both paths here have alpha sigma' - sigma alpha'
constant, so data and noise follow from x and its velocity without dividing by what vanishes at either end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from ledit_jax.diffusion.process import Images
from ledit_jax.errors import ConfigError, nearest

Times = Num[Array, " B"]

# What alpha and sigma are held above where a formula divides by them: float32 still knows 1 - 1e-4 from 1.
_SMALLEST = 1e-4


@dataclass(frozen=True)
class Interpolant:
    """A path by name: "linear" (alpha = 1 - t, sigma = t) or "gvp" (cosine and sine of pi t / 2)."""

    name: str

    def __post_init__(self):
        if self.name not in _PATHS:
            raise ConfigError(f"flow.path={self.name!r} is unknown: {nearest(self.name, _PATHS)}")

    def coefficients(self, t: Any, lib: Any = np) -> tuple[Any, Any, Any, Any]:
        """(alpha, sigma, alpha', sigma') at times t, by NumPy or jax.numpy."""
        return _PATHS[self.name](t, lib)

    def add_noise(self, x0: Images, t: Times, noise: Images) -> Images:
        """Data taken to times t."""
        alpha, sigma, _, _ = self._batched(t)
        return alpha * x0 + sigma * noise

    def velocity(self, x0: Images, t: Times, noise: Images) -> Images:
        """Of the path from x0 to noise, at times t."""
        _, _, d_alpha, d_sigma = self._batched(t)
        return d_alpha * x0 + d_sigma * noise

    def clean(self, x: Images, t: Times, velocity: Images) -> Images:
        """Data that x and its velocity at t imply."""
        alpha, sigma, d_alpha, d_sigma = self._batched(t)
        return (d_sigma * x - sigma * velocity) / (alpha * d_sigma - sigma * d_alpha)

    def noise(self, x: Images, t: Times, velocity: Images) -> Images:
        """Noise that x and its velocity at t imply."""
        alpha, sigma, d_alpha, d_sigma = self._batched(t)
        return (alpha * velocity - d_alpha * x) / (alpha * d_sigma - sigma * d_alpha)

    def score(self, x: Images, t: Times, velocity: Images) -> Images:
        """Gradient of the log-density of x_t, -noise / sigma; held finite at t = 0."""
        return -self.noise(x, t, velocity) / jnp.maximum(self._batched(t)[1], _SMALLEST)

    def velocity_from(
        self, x: Images, t: Times, *, clean: Images | None = None, noise: Images | None = None, score=None
    ) -> Images:
        """The velocity at x and t that an estimate of clean data, of noise or of the score implies: give one of them.

        Held finite at the end where the estimate tells nothing: t = 0 for clean data, t = 1 for noise and score.
        """
        alpha, sigma, _, _ = self._batched(t)
        if score is not None:
            noise = -sigma * score
        if clean is not None:
            noise = (x - alpha * clean) / jnp.maximum(sigma, _SMALLEST)
        elif noise is not None:
            clean = (x - sigma * noise) / jnp.maximum(alpha, _SMALLEST)
        else:
            raise ValueError("velocity_from needs one of clean, noise and score")
        return self.velocity(clean, t, noise)

    def _batched(self, t: Times) -> tuple[Float[Array, "#B 1 1 1"], ...]:
        t = jnp.asarray(t, jnp.float32).reshape(-1, 1, 1, 1)
        return self.coefficients(t, jnp)


def _linear(t: Any, lib: Any) -> tuple[Any, Any, Any, Any]:
    return 1.0 - t, t, -lib.ones_like(t), lib.ones_like(t)


def _gvp(t: Any, lib: Any) -> tuple[Any, Any, Any, Any]:
    angle = np.pi / 2 * t
    alpha, sigma = lib.cos(angle), lib.sin(angle)
    return alpha, sigma, -np.pi / 2 * sigma, np.pi / 2 * alpha


_PATHS: dict[str, Callable[[Any, Any], tuple[Any, Any, Any, Any]]] = {"linear": _linear, "gvp": _gvp}


def shift_times(t: Any, shift: float) -> Any:
    """shift t / (1 + (shift - 1) t), SD3's eq. 23 (arXiv 2403.03206): above 1, more of the time at high noise."""
    return shift * t / (1.0 + (shift - 1.0) * t)
