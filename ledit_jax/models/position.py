"""Positional encodings of the baselines. LEDiT itself has none."""

import functools

import numpy as np
from jaxtyping import Float


@functools.lru_cache(maxsize=16)
def sincos_table(height: int, width: int, dim: int) -> Float[np.ndarray, "h w D"]:
    """DiT's fixed table for a token grid: half the channels for each axis, [sin, cos] within each.

    The first half encodes the column, the second the row (facebookresearch/DiT, get_2d_sincos_pos_embed, whose
    meshgrid puts the column first). Beyond the training grid the positions simply go on counting.
    """
    frequencies = 10_000.0 ** -(np.arange(dim // 4) / (dim // 4))

    def encode(length: int) -> np.ndarray:
        angles = np.arange(length)[:, None] * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    columns = np.broadcast_to(encode(width)[None, :], (height, width, dim // 2))
    rows = np.broadcast_to(encode(height)[:, None], (height, width, dim // 2))
    return np.concatenate([columns, rows], axis=-1).astype(np.float32)
