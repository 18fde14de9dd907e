"""Stable Diffusion's autoencoder (AutoencoderKL): images to 8 times smaller latents of 4 channels, and back; of 16
channels in Stable Diffusion 3.

Architecture of Rombach et al. (arXiv 2112.10752), whose public weights `ledit_jax.convert.vae` reads.
B batch, H W height and width in latent cells, f pixels per side of a cell, T tokens, C channels, Z latent channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ledit_jax.config import check_image_size
from ledit_jax.errors import ConfigError
from ledit_jax.models.module_list import ModuleList
from ledit_jax.models.vae_config import VAEConfig

_SAME = ((1, 1), (1, 1))
# Attention runs over this many queries at a time: all 128 x 128 of a 1024-pixel image at once would cost 1 GiB of
# logits for each image, and as much again for the softmax.
_QUERIES_AT_ONCE = 2048


def _norm(channels: int, config: VAEConfig, rngs: nnx.Rngs) -> nnx.GroupNorm:
    groups = config.norm_num_groups
    # Two passes: E[x^2] - E[x]^2 cancels where a group's mean is large against its spread.
    return nnx.GroupNorm(channels, groups, epsilon=1e-6, dtype=jnp.float32, use_fast_variance=False, rngs=rngs)


def _conv(in_channels: int, out_channels: int, config: VAEConfig, rngs: nnx.Rngs, size=3, strides=1, padding=_SAME):
    dtype = jnp.dtype(config.dtype)
    return nnx.Conv(in_channels, out_channels, (size, size), strides, padding=padding, dtype=dtype, rngs=rngs)


def normed(norm: nnx.GroupNorm, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """What every convolution but the first reads: normalised, through SiLU."""
    return jax.nn.silu(norm(x))


class ResidualBlock(nnx.Module):
    """Norm, SiLU, convolution, twice; a 1x1 convolution on the skip where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, config: VAEConfig, rngs: nnx.Rngs):
        self.norm1 = _norm(in_channels, config, rngs)
        self.conv1 = _conv(in_channels, out_channels, config, rngs)
        self.norm2 = _norm(out_channels, config, rngs)
        self.conv2 = _conv(out_channels, out_channels, config, rngs)
        if in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, config, rngs, size=1, padding="VALID")

    def __call__(self, x: Float[Array, "B H W C1"], normed=normed) -> Float[Array, "B H W C2"]:
        h = self.conv1(normed(self.norm1, x))
        h = self.conv2(normed(self.norm2, h))
        return (self.shortcut(x) if hasattr(self, "shortcut") else x) + h


class SpatialAttention(nnx.Module):
    """Single-head self-attention over all cells, added to its input."""

    def __init__(self, channels: int, config: VAEConfig, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.dtype)
        self.norm = _norm(channels, config, rngs)
        self.query = nnx.Linear(channels, channels, dtype=dtype, rngs=rngs)
        self.key = nnx.Linear(channels, channels, dtype=dtype, rngs=rngs)
        self.value = nnx.Linear(channels, channels, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        B, H, W, C = x.shape
        h = self.norm(x).reshape(B, H * W, C)
        q, k, v = self.query(h), self.key(h), self.value(h)  # B T C

        def attend(q: Float[Array, "B C"]) -> Float[Array, "B C"]:
            logits = jnp.einsum("bc,btc->bt", q, k, preferred_element_type=jnp.float32) * C**-0.5
            return jnp.einsum("bt,btc->bc", jax.nn.softmax(logits).astype(v.dtype), v)

        h = jax.lax.map(attend, q.swapaxes(0, 1), batch_size=_QUERIES_AT_ONCE).swapaxes(0, 1)
        return x + self.out(h).reshape(x.shape)


class MidBlock(nnx.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, config: VAEConfig, rngs: nnx.Rngs):
        self.block1 = ResidualBlock(channels, channels, config, rngs)
        self.attention = SpatialAttention(channels, config, rngs)
        self.block2 = ResidualBlock(channels, channels, config, rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return self.block2(self.attention(self.block1(x)))


class Level(nnx.Module):
    """The residual blocks of one resolution, then the step to the next one: "down", "up" or "none"."""

    def __init__(self, in_channels, out_channels, num_blocks, step: str, attends: bool, config: VAEConfig, rngs):
        widths = (in_channels,) + (out_channels,) * (num_blocks - 1)
        self.blocks = ModuleList([ResidualBlock(width, out_channels, config, rngs) for width in widths])
        if attends:
            self.attentions = ModuleList([SpatialAttention(out_channels, config, rngs) for _ in widths])
        if step == "down":
            # One row and column of zeros at the bottom and the right alone, as the public weights were trained.
            self.downsample = _conv(out_channels, out_channels, config, rngs, strides=2, padding=((0, 1), (0, 1)))
        elif step == "up":
            self.upsample = _conv(out_channels, out_channels, config, rngs)

    def __call__(self, x: Float[Array, "B H1 W1 C1"]) -> Float[Array, "B H2 W2 C2"]:
        return self.step(self.run_blocks(x))

    def run_blocks(self, x: Float[Array, "B H W C1"], normed=normed) -> Float[Array, "B H W C2"]:
        """What happens at this resolution."""
        for index, block in enumerate(self.blocks):
            x = block(x, normed)
            if hasattr(self, "attentions"):
                x = self.attentions[index](x)
        return x

    def step(self, x: Float[Array, "B H1 W1 C"]) -> Float[Array, "B H2 W2 C"]:
        """To the next resolution."""
        if hasattr(self, "downsample"):
            return self.downsample(x)
        return self.upsample(x.repeat(2, axis=1).repeat(2, axis=2)) if hasattr(self, "upsample") else x


class Encoder(nnx.Module):
    """Images to moments: levels downwards, mid block, 2Z channels."""

    def __init__(self, config: VAEConfig, rngs: nnx.Rngs):
        widths = config.block_out_channels
        steps = ["down"] * (len(widths) - 1) + ["none"]
        self.conv_in = _conv(config.image_channels, widths[0], config, rngs)
        self.levels = ModuleList(
            Level(before, width, config.layers_per_block, step, step == "none" and config.level_attention, config, rngs)
            for before, width, step in zip(widths[:1] + widths, widths, steps, strict=False)
        )
        self.mid = MidBlock(widths[-1], config, rngs)
        self.norm_out = _norm(widths[-1], config, rngs)
        self.conv_out = _conv(widths[-1], 2 * config.latent_channels, config, rngs)

    def __call__(self, x: Float[Array, "B fH fW C"]) -> Float[Array, "B H W moments"]:
        x = self.conv_in(x)
        for level in self.levels:
            x = level(x)
        return self.conv_out(normed(self.norm_out, self.mid(x)))


class Decoder(nnx.Module):
    """Latents to images: mid block, then levels upwards (lowest resolution first)."""

    def __init__(self, config: VAEConfig, rngs: nnx.Rngs):
        widths = config.block_out_channels[::-1]
        steps = ["up"] * (len(widths) - 1) + ["none"]
        attends = [config.level_attention] + [False] * (len(widths) - 1)
        self.conv_in = _conv(config.latent_channels, widths[0], config, rngs)
        self.mid = MidBlock(widths[0], config, rngs)
        self.levels = ModuleList(
            Level(before, width, config.layers_per_block + 1, step, attention, config, rngs)
            for before, width, step, attention in zip(widths[:1] + widths, widths, steps, attends, strict=False)
        )
        self.norm_out = _norm(widths[-1], config, rngs)
        self.conv_out = _conv(widths[-1], config.image_channels, config, rngs)

    def __call__(self, x: Float[Array, "B H W Z"]) -> Float[Array, "B fH fW C"]:
        x = self.start(x)
        for index in range(1, len(self.levels)):
            x = self.grow(index, x)
        return self.finish(x)

    def start(self, x: Float[Array, "B H W Z"]) -> Float[Array, "B H W C1"]:
        """All that happens at the latents' own resolution, attention among it."""
        return self.levels[0].run_blocks(self.mid(self.conv_in(x)))

    def grow(self, index: int, x: Float[Array, "B H W C1"], normed=normed) -> Float[Array, "B H2 W2 C2"]:
        """From what level `index` - 1 made to what level `index` makes."""
        return self.levels[index].run_blocks(self.levels[index - 1].step(x), normed)

    def finish(self, x: Float[Array, "B fH fW C1"], normed=normed) -> Float[Array, "B fH fW C"]:
        """From what the last level made to images."""
        return self.conv_out(normed(self.norm_out, x))


class AutoencoderKL(nnx.Module):
    """The autoencoder. Latents are as the network has them: the caller multiplies by `AutoencoderConfig.scale`.

    Used functionally: `graphdef, params = nnx.split(model, nnx.Param)`, then `nnx.merge` inside `jax.jit`.

    Large images are decoded in slices, see models/vae_slices.py.
    """

    def __init__(self, config: VAEConfig, rngs: nnx.Rngs):
        moments = 2 * config.latent_channels
        self.config = config
        self.encoder = Encoder(config, rngs)
        if config.quant_convs:
            latents = config.latent_channels
            self.quant_conv = _conv(moments, moments, config, rngs, size=1, padding="VALID")
            self.post_quant_conv = _conv(latents, latents, config, rngs, size=1, padding="VALID")
        self.decoder = Decoder(config, rngs)

    def encode(self, images: Float[Array, "B fH fW C"]) -> tuple[Float[Array, "B H W Z"], Float[Array, "B H W Z"]]:
        """Mean and log-variance (clipped to [-30, 20]) of the posterior, float32; images in [-1, 1].

        Raises ConfigError where a side is no multiple of `config.downsample`, or the channels are not the config's.
        """
        check_channels("images", images, self.config.image_channels)
        check_image_size(*images.shape[1:3], self.config.downsample)
        moments = self.encoder(images)
        if self.config.quant_convs:
            moments = self.quant_conv(moments)
        moments = moments.astype(jnp.float32)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latents: Float[Array, "B H W Z"]) -> Float[Array, "B fH fW C"]:
        """Images in [-1, 1], float32. The network does not clip: expect small overshoots.

        Raises ConfigError where the channels are not the config's.
        """
        check_channels("latents", latents, self.config.latent_channels)
        if self.config.quant_convs:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents).astype(jnp.float32)


def check_channels(name: str, x: Array, channels: int) -> None:
    """Raises ConfigError for another shape than [B, H, W, channels]."""
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ConfigError(f"{name} of shape {x.shape} must be [batch, height, width, {channels}], channels last")
