"""In which order attention's kernel takes an image's tokens, and which blocks of (queries x keys) it then skips.

Row by row, a block of tokens holds every column, and scan d hides none of them entirely. Tile by tile of the grid, a
tile hides those that lie both below it and to its right. B batch, T tokens, N heads, K head dim, h w token grid.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ledit_jax.ops.fast_memory import LANES
from ledit_jax.ops.scan_masks import visible_blocks, visible_tiles

MAX_BLOCK = 1024
# The fused backward kernel writes dq once per block of keys: fewer passes, but memory that grows with T x T.
MAX_BLOCKS_FUSED = 2
# A query's cell travels as one integer, row * 2**16 + column.
_ROW_BITS = 16

Grid = tuple[int, int]


class Order(NamedTuple):
    """Of the tokens of an image, and of a suffix behind them."""

    grid: Grid
    tile: Grid
    """Tokens go tile by tile, and row by row in each; the whole grid is one tile where that gains nothing."""
    block: int
    """Of queries and of keys, in tokens; those of a tile where there are several."""
    padded: int
    """Tokens, rounded up to whole blocks."""
    visible: Bool[np.ndarray, "n n"]
    """Pairs of blocks that are not hidden entirely; n = padded / block."""


@functools.lru_cache(maxsize=64)
def choose_order(scan: str, grid: Grid, num_suffix: int = 0) -> Order:
    """What is expected to take the least time, forward and backward; rows where tiles take no less.

    Tiles hold a multiple of 128 tokens, 1,024 at most, and divide the grid: a block is a tile then.
    """
    num_image = math.prod(grid)
    block, padded = block_size(num_image + num_suffix)
    orders = [Order(grid, grid, block, padded, visible_blocks(scan, *grid, block, num_suffix))]
    for tile in _tiles(grid):
        block, visible = math.prod(tile), visible_tiles(scan, *grid, tile)
        behind = math.ceil(num_suffix / block)
        visible = np.pad(visible, (0, behind), constant_values=True)
        orders.append(Order(grid, tile, block, num_image + behind * block, visible))
    return min(orders, key=_cost)


def _tiles(grid: Grid) -> Iterator[Grid]:
    for height, width in np.ndindex(grid):
        tile = height + 1, width + 1
        size = math.prod(tile)
        if size <= MAX_BLOCK and size % LANES == 0 and tile != grid and not np.any(np.mod(grid, tile)):
            yield tile


def _cost(order: Order) -> float:
    """Pairs of tokens times matrix products: two forward and five backward, or seven in two kernels."""
    products = 2 + (5 if len(order.visible) <= MAX_BLOCKS_FUSED else 7)
    return products * order.visible.sum() * _block_cost(order.block)


def _block_cost(block: int) -> float:
    """Of one pair of blocks; large blocks cost less a token."""
    return block**2 * (1 + 64 / block)


def block_size(num_tokens: int) -> tuple[int, int]:
    """(block, padded): the kernel's block of queries and of keys, and T padded up to a multiple of it.

    Large blocks cost less, padding costs T x T, hence 640 for 576 = 24 x 24 tokens and 1024 for 16,384.
    """

    def cost(block: int) -> float:
        return math.ceil(num_tokens / block) ** 2 * _block_cost(block)

    block = min(range(LANES, MAX_BLOCK + 1, LANES), key=cost)
    return block, math.ceil(num_tokens / block) * block


def to_kernel(x: Float[Array, "B T N K"], order: Order, num_prefix: int) -> Float[Array, "B N padded K"]:
    """Heads first; image tokens in their order, the prefix behind them, zeros behind that."""
    (h, w), (a, b), (B, T, N, K) = order.grid, order.tile, x.shape
    # One transpose over the grid's axes, with one tile too: swapped axes alone XLA copies more than once.
    image = x[:, num_prefix:].reshape(B, h // a, a, w // b, b, N, K)
    image = image.transpose(0, 5, 1, 3, 2, 4, 6).reshape(B, N, h * w, K)
    both = jnp.concatenate([image, x[:, :num_prefix].swapaxes(1, 2)], axis=2)
    return jnp.pad(both, ((0, 0), (0, 0), (0, order.padded - T), (0, 0)))


def from_kernel(x: Float[Array, "B N padded K"], order: Order, num_prefix: int) -> Float[Array, "B T N K"]:
    """What `to_kernel` was given."""
    (h, w), (a, b), (B, N, _, K) = order.grid, order.tile, x.shape
    image, prefix, _ = jnp.split(x, [h * w, h * w + num_prefix], axis=2)
    image = image.reshape(B, N, h // a, w // b, a, b, K).transpose(0, 2, 4, 3, 5, 1, 6).reshape(B, h * w, N, K)
    return jnp.concatenate([prefix.swapaxes(1, 2), image], axis=1)


def cell_code(row, col):
    """A cell as one integer."""
    return (row << _ROW_BITS) + col


def cell_of_code(code):
    """(row, column)."""
    return code >> _ROW_BITS, code & (2**_ROW_BITS - 1)


def query_cells(order: Order, num_suffix: int) -> Int[np.ndarray, " padded"]:
    """Each query's cell as one integer. Queries that are padding get cells below the grid: they see keys, not NaN."""
    index = np.arange(order.padded, dtype=np.int32)
    num_image = math.prod(order.grid)
    cells = cell_code(*key_cell(index, order.grid, order.tile))
    cells[num_image:] = cell_code(order.grid[0], 0)
    cells[num_image : num_image + num_suffix] = cell_code(*order.grid)  # sees all in every scan
    return cells


def key_cell(keys, grid: Grid, tile: Grid):
    """Row and column of the image's keys, by their place in the order. Of others, any cell."""
    if tile == grid:
        return _divided(keys, grid[1])
    which, within = _divided(keys, math.prod(tile))
    tile_row, tile_col = _divided(which, grid[1] // tile[1])
    row, col = _divided(within, tile[1])
    return tile_row * tile[0] + row, tile_col * tile[1] + col


def _divided(number, divisor: int):
    """Quotient and rest, without the integer division that a TPU's vector unit lacks."""
    if divisor & (divisor - 1) == 0:
        return number >> (divisor.bit_length() - 1), number & (divisor - 1)
    # Half a step away from the integers, the rounding of float32 is harmless up to millions.
    quotient = ((number.astype(jnp.float32) + 0.5) * (1 / divisor)).astype(jnp.int32)
    return quotient, number - quotient * divisor
