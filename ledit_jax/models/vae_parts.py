"""Decoding latents in parts, because a decoder takes gigabytes for each image: slices of the batch, or tiles.

XLA's own account of the temporary memory of the SD sizes at 1024x1024 in float32, compiled for CPU: the whole batch at
once 3.5 GiB for each image, slices 3.5 GiB whatever the batch, tiles of 64 cells 0.9 GiB for each image.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ledit_jax.errors import ConfigError
from ledit_jax.models.vae import AutoencoderKL

_LARGEST_WHOLE = 128 * 128
"""Cells of the largest latent that is decoded whole: 1024x1024 pixels with the Stable Diffusion autoencoder."""


def decode_in_parts(vae: AutoencoderKL, latents: Float[Array, "B H W Z"]) -> Float[Array, "B fH fW C"]:
    """`decode`, one image at a time, and a large image by tiles: 2048x2048 fits where 1024x1024 does."""
    is_large = latents.shape[1] * latents.shape[2] > _LARGEST_WHOLE
    decode = decode_in_tiles if is_large else AutoencoderKL.decode
    return jax.lax.map(lambda latent: decode(vae, latent[None])[0], latents)


def decode_in_tiles(
    vae: AutoencoderKL, latents: Float[Array, "B H W Z"], tile: int = 64, overlap: int = 16
) -> Float[Array, "B fH fW C"]:
    """`decode` by square tiles of `tile` cells, cross-faded over at least `overlap` cells.

    An approximation: norms and attention see one tile instead of the image, so brightness and contrast may
    drift a little between tiles. Equal to `decode` where one tile covers everything. Raises ConfigError unless
    0 <= overlap < tile.
    """
    if not 0 <= overlap < tile:
        raise ConfigError(f"overlap={overlap} must be at least 0 and less than tile={tile}")
    B, H, W, Z = latents.shape
    f, tile_h, tile_w = vae.config.downsample, min(tile, H), min(tile, W)
    rows, row_weights = spread_tiles(H, tile_h, overlap, f)
    columns, column_weights = spread_tiles(W, tile_w, overlap, f)

    def add_tile(canvas, index):
        r, c = index
        crop = jax.lax.dynamic_slice(latents, (0, rows[r], columns[c], 0), (B, tile_h, tile_w, Z))
        image = vae.decode(crop) * (row_weights[r][:, None] * column_weights[c])[..., None]
        corner = (0, rows[r] * f, columns[c] * f, 0)
        image += jax.lax.dynamic_slice(canvas, corner, image.shape)
        return jax.lax.dynamic_update_slice(canvas, image, corner), None

    canvas = jnp.zeros((B, H * f, W * f, vae.config.image_channels))
    r, c = jnp.indices((len(rows), len(columns))).reshape(2, -1)
    return jax.lax.scan(add_tile, canvas, (r, c))[0]


def spread_tiles(
    length: int, tile: int, overlap: int, scale: int
) -> tuple[Int[Array, " N"], Float[Array, "N scaled_tile"]]:
    """The fewest, evenly spread tiles that cover `length` cells: first cells, and weights of their pixels.

    Neighbours overlap by at least `overlap` cells. Weights cross-fade there, and sum to 1 at every pixel.
    """
    count = 1 if length <= tile else math.ceil((length - overlap) / (tile - overlap))
    starts = np.linspace(0, length - tile, count).astype(np.int32)
    pixels = np.arange(tile * scale) + 0.5
    window = np.minimum(pixels, tile * scale - pixels)
    total = np.zeros(length * scale)
    for start in starts:
        total[start * scale : (start + tile) * scale] += window
    weights = [window / total[start * scale : (start + tile) * scale] for start in starts]
    return jnp.asarray(starts), jnp.asarray(np.stack(weights), jnp.float32)
