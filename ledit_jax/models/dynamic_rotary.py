"""Rotary positions that are no constants: DyPE's change along the denoising, RPE-2D's are drawn anew in training.

B batch, T tokens, K head dim; channels as in `rotary`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from ledit_jax.models.rotary import BASE, angles_of_tokens, axis_frequencies, correction_pair, has_ntk, ntk_factor

Tables = tuple[Float[Array, "B T K"], Float[Array, "B T K"]]
"""(cos, sin) of every sample's tokens, float32."""

_STRENGTH, _EXPONENT = 2.0, 2.0
"""DyPE's lambda_s and lambda_t."""
_BETA, _GAMMA = (1.25, 0.75), (16.0, 2.0)
"""Turns over the trained size between which DyPE's YaRN goes from NTK to interpolation, and from plain to NTK."""


def dynamic_tables(
    grid: tuple[int, int],
    trained_grid: tuple[int, int],
    head_dim: int,
    method: str,
    noise_share: Float[Array, " B"],
) -> Tables:
    """Rotary tables of DyPE (arXiv 2510.20766; guyyariv/DyPE), whose frequencies follow the time of each sample.

    noise_share: t, from 0 for data to 1 for noise. With s = max(1, now / trained) of an axis and its d channels,
    "ntk" has base * max(1, (s ** (d / (d - 2))) ** (2 t^2)) in place of the base. "yarn" mixes frequencies over s,
    NTK's and plain ones by two ramps over the pairs, whose bounds are multiplied by t^2, and multiplies cos and sin by
    0.1 ln(s) + 1. So at t = 0 either turns tokens as in training.
    """
    angles, magnitudes = [], []
    for size, trained in zip(grid, trained_grid, strict=True):
        frequencies = dynamic_frequencies(head_dim // 2, size, trained, method, noise_share)
        angles.append(np.arange(size)[:, None] * frequencies[:, None, :])
        scale = max(1.0, size / trained)
        magnitudes.append(1.0 + 0.1 * math.log(scale) if method == "yarn" else 1.0)
    magnitude = np.repeat(np.float32(magnitudes), head_dim // 2)
    both = angles_of_tokens(*angles, jnp)
    return magnitude * jnp.cos(both), magnitude * jnp.sin(both)


def dynamic_frequencies(
    dim: int, size: int, trained: int, method: str, t: Float[Array, " B"]
) -> Float[Array, "B pairs"]:
    """Radians per token of one axis's dim / 2 pairs at each time; see `dynamic_tables` and `axis_frequencies`."""
    pairs, t = np.arange(dim // 2), t[:, None]
    plain = axis_frequencies(dim, size, trained, "plain")
    scale = max(1.0, size / trained)
    if scale == 1.0 or (method == "ntk" and not has_ntk(dim)):
        return jnp.broadcast_to(jnp.float32(plain), (len(t), len(pairs)))
    if method == "ntk":
        factor = ntk_factor(dim, scale) ** (_STRENGTH * t**_EXPONENT)
        return plain * factor ** (-2.0 * pairs / dim)
    interpolated, ntk = plain / scale, axis_frequencies(dim, size, trained, "ntk")
    mixed = interpolated + (ntk - interpolated) * _kept(dim, trained, _BETA, t)
    return mixed + (plain - mixed) * _kept(dim, trained, _GAMMA, t)


def _kept(dim: int, trained: int, turns: tuple[float, float], t: Float[Array, "B 1"]) -> Float[Array, "B pairs"]:
    """Share of the faster of two frequencies: 1 up to the pair that turns so often, 0 from the other on.

    Both bounds are held within the pairs. DyPE's code holds the upper one alone, so that close to
    t = 0 its ramps turn around.
    """
    shift = dim * jnp.log(jnp.maximum(t**_EXPONENT, 1e-12)) / (2 * math.log(BASE))
    low, high = (correction_pair(dim, trained, times) - shift for times in turns)
    low, high = (jnp.clip(bound, 0, dim // 2) for bound in (jnp.floor(low), jnp.ceil(high)))
    return 1.0 - jnp.clip((np.arange(dim // 2) - low) / jnp.maximum(high - low, 1e-3), 0.0, 1.0)


def ordered_tables(key: jax.Array, batch: int, grid: tuple[int, int], ranges: tuple[int, int], head_dim: int) -> Tables:
    """Rotary tables of positions drawn for each sample and axis by itself: see `ordered_positions`."""
    angles = [
        ordered_positions(axis_key, batch, size, longest)[..., None] * _plain(head_dim)
        for axis_key, size, longest in zip(jax.random.split(key), grid, ranges, strict=True)
    ]
    both = angles_of_tokens(*angles, jnp)
    return jnp.cos(both), jnp.sin(both)


def ordered_positions(key: jax.Array, batch: int, size: int, longest: int) -> Int[Array, "B size"]:
    """`size` different positions out of 0 .. longest - 1 for each sample, any subset as likely as another, in order."""
    shuffled = jnp.argsort(jax.random.uniform(key, (batch, longest)), axis=-1)
    return jnp.sort(shuffled[:, :size], axis=-1)


def spaced_tables(
    grid: tuple[int, int], ranges: tuple[int, int], head_dim: int
) -> tuple[Float[np.ndarray, "T K"], Float[np.ndarray, "T K"]]:
    """(cos, sin) of positions spread evenly over 0 .. longest - 1 on each axis."""
    places = [np.linspace(0, longest - 1, size) for size, longest in zip(grid, ranges, strict=True)]
    both = angles_of_tokens(*(place[:, None] * _plain(head_dim) for place in places), np)
    return np.cos(both).astype(np.float32), np.sin(both).astype(np.float32)


def _plain(head_dim: int) -> Float[np.ndarray, " pairs"]:
    return axis_frequencies(head_dim // 2, 1, 1, "plain")


def noise_share(times: Num[Array, " B"], clean: float, noise: float) -> Float[Array, " B"]:
    """Times, as a network is fed them, as shares of the way from clean data to pure noise, 0..1."""
    return jnp.clip((times.astype(jnp.float32) - clean) / (noise - clean), 0.0, 1.0)
