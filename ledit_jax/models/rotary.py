"""Rotary positions on two axes (RoPE), and what is done to their frequencies beyond the training grid.

Half of a head's channels turn with the row, the other half with the column, in neighbouring pairs, as in FiT
(arXiv 2402.12376; whlzy/FiT, rope.py). NTK, YaRN and RIFLEx change frequencies at sampling, with the same weights;
`dynamic_rotary` has those that change along the denoising.

T tokens, N heads, K head dim.
"""

import functools
import math
from types import ModuleType

import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float

BASE = 10_000.0
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
    both, magnitude = angles_of_tokens(*angles, np), 1.0
    if method == "yarn":
        magnitude += 0.1 * math.log(max(1.0, grid[0] / trained_grid[0], grid[1] / trained_grid[1]))
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
    base = BASE * ntk_factor(dim, scale) if method == "ntk" and has_ntk(dim) else BASE
    frequencies = base ** (-2.0 * pairs / dim)
    if scale == 1.0 or method in ("plain", "ntk"):
        return frequencies
    if method == "riflex":
        frequencies[np.argmin(np.abs(2 * np.pi / frequencies - trained))] = _RIFLEX_SHARE * 2 * np.pi / size
        return frequencies
    keep = 1.0 - _yarn_ramp(dim, trained)
    return frequencies * keep + frequencies / scale * (1.0 - keep)


def has_ntk(dim: int) -> bool:
    """Whether an axis with so many channels has pairs beside the fastest one, which NTK leaves alone."""
    return dim > 2


def ntk_factor(dim: int, scale: float) -> float:
    """What NTK-aware scaling multiplies the base by, for an axis of dim channels that grew by `scale`."""
    return scale ** (dim / (dim - 2))


def angles_of_tokens(
    rows: Float[np.ndarray, "*B h pairs"] | Float[Array, "*B h pairs"],
    columns: Float[np.ndarray, "*B w pairs"] | Float[Array, "*B w pairs"],
    xp: ModuleType,
) -> Float[np.ndarray, "*B T K"] | Float[Array, "*B T K"]:
    """The angle of each channel and token, from those of the pairs by row and by column. xp: numpy or jax.numpy."""
    h, w = rows.shape[-2], columns.shape[-2]
    rows, columns = (xp.repeat(angles, 2, axis=-1) for angles in (rows, columns))
    return xp.concatenate([xp.repeat(rows, w, axis=-2), xp.tile(columns, (h, 1))], axis=-1)


def correction_pair(dim: int, trained: int, turns: float) -> float:
    """The pair, a fraction, that turns so often over the trained size."""
    return dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(BASE))


def _yarn_ramp(dim: int, trained: int) -> Float[np.ndarray, " pairs"]:
    """0 for the pairs that keep their frequency, 1 for those that are interpolated."""
    low = max(math.floor(correction_pair(dim, trained, _BETA_FAST)), 0)
    high = min(math.ceil(correction_pair(dim, trained, _BETA_SLOW)), dim - 1)
    return np.clip((np.arange(dim // 2) - low) / max(high - low, 1e-3), 0.0, 1.0)


def rotate(
    x: Float[Array, "B T N K"], cos: Float[Array, "*B T K"] | np.ndarray, sin: Float[Array, "*B T K"] | np.ndarray
) -> Float[Array, "B T N K"]:
    """Turns each neighbouring pair (a, b) of channels to (a cos - b sin, b cos + a sin), in float32.

    cos, sin: [T, K] for all samples, or [B, T, K].
    """
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x.shape)
    return (x.astype(jnp.float32) * cos[..., None, :] + turned * sin[..., None, :]).astype(x.dtype)
