"""Decoding latents within the memory there is: one image at a time, and large levels of the decoder in slices.

A slice is some rows of what a level makes, with the rows around it that its convolutions see. What keeps slices from
being alone are the group norms, whose means and variances are of the whole image. They are found first: a pass over
all slices gives each norm's statistics from those of the norms before it, so that after as many passes as a level has
norms all are exact. Images are those of `AutoencoderKL.decode` up to the rounding of float32; there are no seams.

H W height and width of what a level makes, C channels, G groups, S slices, R rows of one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from ledit_jax.models.autoencoders import Autoencoder, AutoencoderSizes
from ledit_jax.models.vae import AutoencoderKL

_ROWS = 128
"""Of a slice, at the resolution that the level makes."""
_WHOLE = {"tpu": 2.3}
_WHOLE_ELSEWHERE = 3.6
"""Arrays of a level's input at the resolution it makes, in float32, that a whole level needs at once, by platform:
what XLA's compilers for TPU and CPU plan for Stable Diffusion's last level (docs/compile_only.md), rounded up."""

_Statistics = tuple[tuple[Float[Array, " _"], Float[Array, " _"]], ...]
"""(mean, variance) of each norm that a level visits, a number for each channel."""


def choose_slices(config: AutoencoderSizes, height: int, width: int, memory: int, platform: str) -> int:
    """How many of the decoder's last levels need slices, to decode an image of so many latent cells in `memory` bytes;
    0 decodes it whole."""
    arrays = 4 * _WHOLE.get(platform, _WHOLE_ELSEWHERE) * height * width
    widths = config.block_out_channels[::-1]
    first = len(widths) - config.levels_in_slices
    needs = [arrays * 4**index * widths[index - 1] for index in range(first, len(widths))]
    return sum(need > memory for need in needs)


def decode_by_image(vae: Autoencoder, latents: Float[Array, "B H W Z"], sliced: int) -> Float[Array, "B fH fW C"]:
    """`decode`, one image at a time, the last `sliced` levels in slices. Errors as there."""

    def decode(latent):
        return (decode_in_slices(vae, latent[None], sliced) if sliced else vae.decode(latent[None]))[0]

    return jax.lax.map(decode, latents)


def decode_in_slices(vae: AutoencoderKL, latents: Float[Array, "1 H W Z"], sliced: int) -> Float[Array, "1 fH fW C"]:
    """`decode` of one image with the last `sliced` levels in slices: all but the first at most."""
    decoder = vae.decoder
    x = decoder.start(vae.post_quant_conv(latents) if vae.config.quant_convs else latents)
    for index in range(1, len(decoder.levels)):
        is_last = index == len(decoder.levels) - 1
        if index >= len(decoder.levels) - sliced:
            x = _grow_in_slices(decoder, index, is_last, x)
        else:
            x = decoder.grow(index, x)
            x = decoder.finish(x) if is_last else x
    return x.astype(jnp.float32)


def _grow_in_slices(decoder: nnx.Module, index: int, is_last: bool, x: Float[Array, "1 H1 W1 C1"]):
    """`grow`, and of the last level `finish`, slice by slice."""
    blocks = decoder.levels[index].blocks
    norms = [norm for block in blocks for norm in (block.norm1, block.norm2)] + [decoder.norm_out] * is_last
    height, width = 2 * x.shape[1], 2 * x.shape[2]
    rows = min(_ROWS, height)
    halo = 2 * (len(blocks) + 1)  # a row for each convolution: before, in and after the blocks
    starts = np.arange(0, height, rows)
    below = (starts[-1] + rows - height) // 2
    padded = jnp.pad(x, ((0, 0), (halo // 2, halo // 2 + below), (0, 0), (0, 0)))

    def run(start, statistics: _Statistics):
        """(what the slice makes, what each norm reads): own rows with the halo."""
        part = jax.lax.dynamic_slice_in_dim(padded, start // 2, (rows + 2 * halo) // 2, axis=1)
        row = start - halo + jnp.arange(rows + 2 * halo)
        inside = ((row >= 0) & (row < height))[:, None, None]  # convolutions see zeros around an image
        given, seen = iter(statistics), []

        def normed(norm, x):
            seen.append(x[0, halo : halo + rows].astype(jnp.float32))
            return jnp.where(inside, jax.nn.silu(_normalised(norm, x, *next(given))), 0)

        out = decoder.grow(index, part, normed)
        out = decoder.finish(out, normed) if is_last else out
        return out[0, halo : halo + rows], seen

    def moments(statistics: _Statistics, start):
        row = start + jnp.arange(rows)
        return [_moments(x, row < height) for x in run(start, statistics)[1]]

    def one_pass(_, statistics: _Statistics) -> _Statistics:
        found = jax.lax.map(functools.partial(moments, statistics), starts)
        return tuple(_combined(norm, *parts) for norm, parts in zip(norms, found, strict=True))

    nothing = tuple((jnp.zeros(norm.scale.shape), jnp.ones(norm.scale.shape)) for norm in norms)
    statistics = jax.lax.fori_loop(0, len(norms), one_pass, nothing)
    out = jax.lax.map(lambda start: run(start, statistics)[0], starts)
    return out.reshape(1, -1, width, out.shape[-1])[:, :height]


def _normalised(norm: nnx.GroupNorm, x: Float[Array, "1 H W C"], mean, variance) -> Float[Array, "1 H W C"]:
    """`norm(x)` with statistics that are given."""
    scaled = jax.lax.rsqrt(variance + norm.epsilon) * norm.scale[...]
    return (x.astype(jnp.float32) - mean) * scaled + norm.bias[...]


def _moments(x: Float[Array, "R W C"], inside: Bool[Array, " R"]):
    """(count, mean, sum of squared differences) of each channel, over the rows that are inside the image."""
    weight = inside[:, None, None]
    count = jnp.maximum(inside.sum() * x.shape[1], 1).astype(jnp.float32)
    mean = jnp.where(weight, x, 0).sum((0, 1)) / count
    return count, mean, jnp.where(weight, (x - mean) ** 2, 0).sum((0, 1))


def _combined(norm: nnx.GroupNorm, count: Float[Array, " S"], mean: Float[Array, "S C"], squares: Float[Array, "S C"]):
    """(mean, variance) of each channel's group, from those of its channels in each slice.

    Not from sums of squares, which cancel where a mean is large against its spread.
    """
    share = (count / count.sum())[:, None, None]
    size = mean.shape[1] // norm.num_groups
    means = mean.reshape(-1, norm.num_groups, size)
    group = (share * means).sum((0, 2)) / size
    spread = (share * (means - group[:, None]) ** 2).sum((0, 2)) / size
    variance = spread + squares.reshape(means.shape).sum((0, 2)) / (count.sum() * size)
    return jnp.repeat(group, size), jnp.repeat(variance, size)
