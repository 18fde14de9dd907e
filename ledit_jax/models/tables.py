"""Tables that positions are made of: sines and cosines, and a learned table taken to another grid."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


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


def resize_table(table: Float[Array, "th tw D"], grid: tuple[int, int]) -> Float[Array, "h w D"]:
    """A learned table at another grid, by bicubic interpolation; what PyTorch's `interpolate` does without aligned
    corners (the kernel's a is -0.75), which is how vision transformers are taken to other sizes."""
    rows, columns = (_cubic_weights(*sizes) for sizes in zip(table.shape[:2], grid, strict=True))
    return jnp.einsum("hi,wj,ijd->hwd", rows, columns, table, precision="highest")


@functools.lru_cache(maxsize=16)
def _cubic_weights(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Row i holds the weights of the old cells in new cell i; cells beyond the border repeat the last."""
    a = -0.75
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int)
    weights = np.zeros((new, old))
    for offset in range(-1, 3):
        x = np.abs(centre - (first + offset))
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        cell = np.clip(first + offset, 0, old - 1)
        np.add.at(weights, (np.arange(new), cell), np.where(x <= 1, near, far))
    return weights.astype(np.float32)
