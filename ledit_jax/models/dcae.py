"""The deep compression autoencoder DC-AE: images to 32 times smaller latents of 32 channels, and back.

Architecture of Chen et al. (arXiv 2410.10733) with the attention of EfficientViT (arXiv 2205.14756), as diffusers'
`AutoencoderDC` computes it; `ledit_jax.convert.dcae` reads its weights.
B batch, H W height and width in cells, f pixels per side of a cell, T cells, C channels, G groups, K head dim,
Z latent channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ledit_jax.config import check_image_size
from ledit_jax.models.dcae_config import DCAEConfig
from ledit_jax.models.module_list import ModuleList
from ledit_jax.models.vae import check_channels

_EXPANSION = 4


def _conv(channels: int, out_channels: int, rngs: nnx.Rngs, size=3, strides=1, bias=True, groups=1) -> nnx.Conv:
    pad = ((size // 2, size // 2),) * 2
    how = dict(padding=pad, feature_group_count=groups, use_bias=bias, rngs=rngs)
    return nnx.Conv(channels, out_channels, (size, size), strides, **how)


def fold(x: Float[Array, "B H W folded"]) -> Float[Array, "B rows columns C"]:
    """Channels to pixels: channel 4 c + 2 i + j becomes channel c of row i and column j of a cell."""
    B, H, W, C = x.shape
    return x.reshape(B, H, W, C // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(B, 2 * H, 2 * W, C // 4)


def unfold(x: Float[Array, "B rows columns C"]) -> Float[Array, "B H W folded"]:
    """Pixels to channels, the inverse of `fold`."""
    B, H, W, C = x.shape
    return x.reshape(B, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 5, 2, 4).reshape(B, H // 2, W // 2, 4 * C)


def _averaged(x: Float[Array, "B H W C1"], channels: int) -> Float[Array, "B H W C2"]:
    """Neighbouring channels to their mean."""
    return x.reshape(*x.shape[:-1], channels, -1).mean(-1)


def _repeated(x: Float[Array, "B H W C1"], channels: int) -> Float[Array, "B H W C2"]:
    return jnp.repeat(x, channels // x.shape[-1], axis=-1)


class RMSNorm(nnx.Module):
    """Over channels, with a scale and a bias."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        inverse = jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * inverse * self.scale[...] + self.bias[...]


class ResidualBlock(nnx.Module):
    """Two convolutions and a norm, added to their input."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.conv1 = _conv(channels, channels, rngs)
        self.conv2 = _conv(channels, channels, rngs, bias=False)
        self.norm = RMSNorm(channels)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return x + self.norm(self.conv2(jax.nn.silu(self.conv1(x))))


class Scale(nnx.Module):
    """Queries, keys and values of a cell's surroundings, from those of its cells."""

    def __init__(self, channels: int, size: int, head_dim: int, rngs: nnx.Rngs):
        self.depthwise = _conv(channels, channels, rngs, size, bias=False, groups=channels)
        self.grouped = _conv(channels, channels, rngs, size=1, bias=False, groups=channels // head_dim)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return self.grouped(self.depthwise(x))


class LinearAttention(nnx.Module):
    """ReLU attention over all cells at several scales, linear in their number, added to its input."""

    def __init__(self, channels: int, config: DCAEConfig, rngs: nnx.Rngs):
        def linear(width):
            return nnx.Linear(width, channels, use_bias=False, rngs=rngs)

        self.head_dim = config.head_dim
        self.query, self.key, self.value = linear(channels), linear(channels), linear(channels)
        self.scales = ModuleList([Scale(3 * channels, size, config.head_dim, rngs) for size in config.scales])
        self.out = linear(channels * (1 + len(config.scales)))
        self.norm = RMSNorm(channels)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        B, H, W, _ = x.shape
        own = jnp.concatenate([self.query(x), self.key(x), self.value(x)], axis=-1)
        every = jnp.concatenate([own, *(scale(own) for scale in self.scales)], axis=-1)
        # A group is 3 K channels in a row, whichever of the three projections they came from.
        q, k, v = jnp.moveaxis(every.reshape(B, H * W, -1, 3, self.head_dim), 3, 0)  # B T G K
        q, k = jax.nn.relu(q), jax.nn.relu(k)
        summed = jnp.einsum("btgk,btgv->bgkv", k, v)
        weight = jnp.einsum("btgk,bgk->btg", q, k.sum(1))
        h = jnp.einsum("btgk,bgkv->btgv", q, summed) / (weight + 1e-15)[..., None]
        return x + self.norm(self.out(h.reshape(B, H, W, -1)))


class GatedMLP(nnx.Module):
    """Wider, a convolution of each channel alone, half of them gating the others; added to its input."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        wide = 2 * _EXPANSION * channels
        self.expand = _conv(channels, wide, rngs, size=1)
        self.depthwise = _conv(wide, wide, rngs, groups=wide)
        self.project = _conv(wide // 2, channels, rngs, size=1, bias=False)
        self.norm = RMSNorm(channels)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        h, gate = jnp.split(self.depthwise(jax.nn.silu(self.expand(x))), 2, axis=-1)
        return x + self.norm(self.project(h * jax.nn.silu(gate)))


class AttentionBlock(nnx.Module):
    """EfficientViT's: attention, then the MLP."""

    def __init__(self, channels: int, config: DCAEConfig, rngs: nnx.Rngs):
        self.attention = LinearAttention(channels, config, rngs)
        self.mlp = GatedMLP(channels, rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return self.mlp(self.attention(x))


class Downsample(nnx.Module):
    """To half the sides; the shortcut folds pixels into channels and averages those."""

    def __init__(self, channels: int, out_channels: int, folds: bool, rngs: nnx.Rngs):
        self.folds, self.out_channels = folds, out_channels
        self.conv = _conv(channels, out_channels // 4 if folds else out_channels, rngs, strides=1 if folds else 2)

    def __call__(self, x: Float[Array, "B H1 W1 C1"]) -> Float[Array, "B H2 W2 C2"]:
        h = self.conv(x)
        return (unfold(h) if self.folds else h) + _averaged(unfold(x), self.out_channels)


class Upsample(nnx.Module):
    """To twice the sides; the shortcut repeats channels and folds them into pixels."""

    def __init__(self, channels: int, out_channels: int, folds: bool, rngs: nnx.Rngs):
        self.folds, self.out_channels = folds, out_channels
        self.conv = _conv(channels, 4 * out_channels if folds else out_channels, rngs)

    def __call__(self, x: Float[Array, "B H1 W1 C1"]) -> Float[Array, "B H2 W2 C2"]:
        h = fold(self.conv(x)) if self.folds else self.conv(x.repeat(2, axis=1).repeat(2, axis=2))
        return h + fold(_repeated(x, 4 * self.out_channels))


def _blocks(level: int, count: int, config: DCAEConfig, rngs: nnx.Rngs) -> list[nnx.Module]:
    """Those of a level, which change no shape."""
    width = config.block_out_channels[level]
    if level < len(config.block_out_channels) - config.attention_levels:
        return [ResidualBlock(width, rngs) for _ in range(count)]
    return [AttentionBlock(width, config, rngs) for _ in range(count)]


class Encoder(nnx.Module):
    """Images to latents; each level is its blocks, then the step to the next."""

    def __init__(self, config: DCAEConfig, rngs: nnx.Rngs):
        widths, self.latent_channels = config.block_out_channels, config.latent_channels
        levels = [_blocks(level, count, config, rngs) for level, count in enumerate(config.encoder_layers)]
        for level, width, after in zip(levels, widths, widths[1:], strict=False):
            level.append(Downsample(width, after, config.folds, rngs))
        self.conv_in = _conv(config.image_channels, widths[0], rngs)
        self.levels = ModuleList([ModuleList(level) for level in levels])
        self.conv_out = _conv(widths[-1], config.latent_channels, rngs)

    def __call__(self, x: Float[Array, "B fH fW C"]) -> Float[Array, "B H W Z"]:
        x = self.conv_in(x)
        for level in self.levels:
            for step in level:
                x = step(x)
        return self.conv_out(x) + _averaged(x, self.latent_channels)


class Decoder(nnx.Module):
    """Latents to images; levels lie as the encoder's, full resolution first, and run backwards."""

    def __init__(self, config: DCAEConfig, rngs: nnx.Rngs):
        widths, self.width = config.block_out_channels, config.block_out_channels[-1]
        levels = [_blocks(level, count, config, rngs) for level, count in enumerate(config.decoder_layers)]
        for level, width, before in zip(levels, widths, widths[1:], strict=False):
            level.insert(0, Upsample(before, width, config.folds, rngs))
        self.conv_in = _conv(config.latent_channels, widths[-1], rngs)
        self.levels = ModuleList([ModuleList(level) for level in levels])
        self.norm_out = RMSNorm(widths[0])
        self.conv_out = _conv(widths[0], config.image_channels, rngs)

    def __call__(self, x: Float[Array, "B H W Z"]) -> Float[Array, "B fH fW C"]:
        x = self.conv_in(x) + _repeated(x, self.width)
        for level in reversed(self.levels):
            for step in level:
                x = step(x)
        return self.conv_out(jax.nn.relu(self.norm_out(x)))


class AutoencoderDC(nnx.Module):
    """The autoencoder, used as `ledit_jax.models.vae.AutoencoderKL` is; all is float32, and decoded whole."""

    def __init__(self, config: DCAEConfig, rngs: nnx.Rngs):
        self.config = config
        self.encoder = Encoder(config, rngs)
        self.decoder = Decoder(config, rngs)

    def encode(self, images: Float[Array, "B fH fW C"]) -> tuple[Float[Array, "B H W Z"], Float[Array, "B H W Z"]]:
        """The latents of images in [-1, 1], and the logarithm of a variance of 0: there is nothing to draw.

        Raises ConfigError where a side is no multiple of `config.downsample`, or the channels are not the config's.
        """
        check_channels("images", images, self.config.image_channels)
        check_image_size(*images.shape[1:3], self.config.downsample)
        latents = self.encoder(images)
        return latents, jnp.full_like(latents, -jnp.inf)

    def decode(self, latents: Float[Array, "B H W Z"]) -> Float[Array, "B fH fW C"]:
        """Images in [-1, 1], unclipped. Raises ConfigError where the channels are not the config's."""
        check_channels("latents", latents, self.config.latent_channels)
        return self.decoder(latents)
