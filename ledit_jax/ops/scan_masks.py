"""The causal scans over an h x w token grid (LEDiT, figure 4): who may attend to whom.

Each scan is a pure function of the query's and the key's (row, column). It uses comparisons and bit operators
alone, so the same code serves NumPy masks, traced masks and kernels that compute the mask block by block.
"""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool

from ledit_jax.errors import ConfigError, nearest
from ledit_jax.parallel.memory import check_fits, host_memory


def row_major(r, c, key_r, key_c):
    """Scan a, "one-dimension": the key is not later in reading order."""
    return (key_r < r) | ((key_r == r) & (key_c <= c))


def upper_left(r, c, key_r, key_c):
    """Scan b, "mask lower-right": the key lies neither below nor to the right."""
    return (key_r <= r) & (key_c <= c)


def upper_left_and_neighbours(r, c, key_r, key_c):
    """Scan c, "unmask neighborhood": scan b, and the eight neighbours."""
    return upper_left(r, c, key_r, key_c) | ((abs(key_r - r) <= 1) & (abs(key_c - c) <= 1))


def all_but_lower_right(r, c, key_r, key_c):
    """Scan d, "mask lower-right corner": only keys that are both below and to the right are hidden."""
    return (key_r <= r) | (key_c <= c)


def all_but_lower_right_inclusive(r, c, key_r, key_c):
    """The other reading of d: the rest of the query's own row and column, right and below, is hidden as well."""
    return (key_r < r) | (key_c < c) | ((key_r == r) & (key_c == c))


def everything(r, c, key_r, key_c):
    """No mask: plain self-attention."""
    return (key_r == key_r) | (r == r)


SCANS: dict[str, Callable] = {
    "a": row_major,
    "b": upper_left,
    "c": upper_left_and_neighbours,
    "d": all_but_lower_right,
    "d_inclusive": all_but_lower_right_inclusive,
    "none": everything,
}


def scan_mask(variant: str, height: int, width: int) -> Bool[np.ndarray, "T T"]:
    """Dense mask of a scan over a height x width token grid; [query, key], True = may attend, T = height * width.

    Tokens are in row-major order. Raises ConfigError for an unknown variant, and for more tokens than memory holds.
    """
    if not isinstance(variant, str) or variant not in SCANS:
        raise ConfigError(f"scan {variant!r} is unknown: {nearest(str(variant), SCANS)}")
    if not all(hasattr(side, "__index__") for side in (height, width)):
        raise ConfigError(f"a grid of {height!r:.40} x {width!r:.40} tokens cannot be: both sides are whole numbers")
    if height < 1 or width < 1:
        raise ConfigError(f"a grid of {height} x {width} tokens cannot be: both sides must be at least 1")
    tokens = height * width
    check_fits(f"the masks of {tokens:,} tokens", tokens**2, host_memory(), "use smaller images")
    index = np.arange(tokens)
    row, col = index // width, index % width
    return SCANS[variant](row[:, None], col[:, None], row[None, :], col[None, :])


@functools.lru_cache(maxsize=64)
def visible_blocks(variant: str, height: int, width: int, block: int, num_suffix: int = 0) -> Bool[np.ndarray, "n n"]:
    """Which (query block, key block) pairs of `scan_mask` hold a visible pair, for blocks of consecutive tokens.

    num_suffix: so many tokens behind those of the grid see all and are seen by all; T counts them. n = ceil(T / block).
    Goes through the mask one block of queries at a time, so that T x T is never stored.
    """
    index = np.arange(height * width)
    row, col = index // width, index % width
    starts = index[::block]
    blocks = [
        SCANS[variant](row[s : s + block, None], col[s : s + block, None], row[None], col[None]).any(axis=0)
        for s in starts
    ]
    visible = np.logical_or.reduceat(np.stack(blocks), starts, axis=1)
    if not num_suffix:
        return visible
    behind = -(-(height * width + num_suffix) // block) - len(visible)
    visible = np.pad(visible, (0, behind))
    first = height * width // block  # of the blocks that hold a token of the suffix
    visible[first:], visible[:, first:] = True, True
    return visible


def visible_tiles(variant: str, height: int, width: int, tile: tuple[int, int]) -> Bool[np.ndarray, "n n"]:
    """As `visible_blocks` where a block is a tile of the grid: n tiles in reading order, which divide the grid.

    Every scan shows most to the corners of a tile, or next to them.
    """
    corners = np.indices((2, 2)).reshape(2, 1, 4) * (np.reshape(tile, (2, 1, 1)) - 1)
    first = np.indices((height // tile[0], width // tile[1])).reshape(2, -1, 1) * np.reshape(tile, (2, 1, 1))
    row, col = first + corners
    seen = SCANS[variant](row[:, None, :, None], col[:, None, :, None], row[None, :, None], col[None, :, None])
    return seen.any(axis=(2, 3))
