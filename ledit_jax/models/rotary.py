"""Rotary positions on two axes (RoPE), and what is done to their frequencies beyond the training grid.

Half of a head's channels turn with the row, the other half with the column, in neighbouring pairs, as in FiT
(arXiv 2402.12376; whlzy/FiT, rope.py). NTK, YaRN and RIFLEx change frequencies at sampling, with the same weights.

T tokens, N heads, K head dim.
"""

import functools
import math

import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float

_BASE = 10_000.0
_BETA_FAST, _BETA_SLOW = 32.0, 1.0
_RIFLEX_SHARE = 0.9


@functools.lru_cache(maxsize=32)
def rotary_tables(
    grid: tuple[int, int], trained_grid: tuple[int, int], head_dim: int, method: str = "plain"
) -> tuple[Float[np.ndarray, "T K"], Float[np.ndarray, "T K"]]:
    """(cos, sin) of every token's angles, tokens row-major, channels (row pairs, column pairs), float32.

    grid, trained_grid: (rows, columns) of tokens now and in training; each axis has a scale of its own,
    s = max(1, now / trained). head_dim is a multiple of 4. method: "plain", "ntk", "yarn" or "riflex", see
    `axis_frequencies`. YaRN multiplies cos and sin by 0.1 ln(s) + 1, s of the axis that grew most.
    """
    angles = [
        np.arange(size)[:, None] * axis_frequencies(head_dim // 2, size, trained, method)
        for size, trained in zip(grid, trained_grid, strict=True)
    ]
    rows, columns = (np.repeat(a, 2, axis=1) for a in angles)
    h, w = grid
    both = np.concatenate([np.repeat(rows, w, axis=0), np.tile(columns, (h, 1))], axis=1)
    magnitude = 1.0
    if method == "yarn":
        magnitude += 0.1 * math.log(max(1.0, h / trained_grid[0], w / trained_grid[1]))
    return (magnitude * np.cos(both)).astype(np.float32), (magnitude * np.sin(both)).astype(np.float32)


def axis_frequencies(dim: int, size: int, trained: int, method: str) -> Float[np.ndarray, " pairs"]:
    """Radians per token of one axis's dim / 2 pairs, fastest first, for `size` tokens after training on `trained`.

    "plain": base ** (-2i / dim), base 10,000 (RoFormer, arXiv 2104.09864).
    "ntk": base * s ** (dim / (dim - 2)) instead (NTK-aware scaling; VisionNTK of FiT).
    "yarn": pairs that turn less than once over the training size are divided by s, those that turn more than 32
    times stay, and a linear ramp over the pairs lies between (YaRN, arXiv 2309.00071; VisionYaRN of FiT).
    "riflex": the pair whose period is nearest to the training size, which is the one that would repeat first, is
    slowed to 0.9 of a turn over `size` (RIFLEx, arXiv 2502.15894, equation 8).
    """
    scale = max(1.0, size / trained)
    pairs = np.arange(dim // 2)
    base = _BASE * scale ** (dim / (dim - 2)) if method == "ntk" and dim > 2 else _BASE
    frequencies = base ** (-2.0 * pairs / dim)
    if scale == 1.0 or method in ("plain", "ntk"):
        return frequencies
    if method == "riflex":
        frequencies[np.argmin(np.abs(2 * np.pi / frequencies - trained))] = _RIFLEX_SHARE * 2 * np.pi / size
        return frequencies
    keep = 1.0 - _yarn_ramp(dim, trained)
    return frequencies * keep + frequencies / scale * (1.0 - keep)


def _yarn_ramp(dim: int, trained: int) -> Float[np.ndarray, " pairs"]:
    """0 for the pairs that keep their frequency, 1 for those that are interpolated."""

    def pair_that_turns(times: float) -> float:
        return dim * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(_BASE))

    low = max(math.floor(pair_that_turns(_BETA_FAST)), 0)
    high = min(math.ceil(pair_that_turns(_BETA_SLOW)), dim - 1)
    return np.clip((np.arange(dim // 2) - low) / max(high - low, 1e-3), 0.0, 1.0)


def rotate(
    x: Float[Array, "B T N K"], cos: Float[Array, "T K"] | np.ndarray, sin: Float[Array, "T K"] | np.ndarray
) -> Float[Array, "B T N K"]:
    """Turns each neighbouring pair (a, b) of channels to (a cos - b sin, b cos + a sin), in float32."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x.shape)
    return (x.astype(jnp.float32) * cos[:, None] + turned * sin[:, None]).astype(x.dtype)
