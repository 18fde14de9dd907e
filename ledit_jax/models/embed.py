"""What enters and leaves the transformer: patches, timesteps and class labels.

B batch, H W height and width in latent cells, h w token grid, C channels, P patch size, D width.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Num

from ledit_jax.config import ModelConfig
from ledit_jax.models.linear import Linear
from ledit_jax.models.norm import layer_norm, modulate

_FREQUENCY_EMBEDDING_SIZE = 256
_normal_002 = nnx.initializers.normal(0.02)
_zeros = nnx.initializers.zeros_init()


Times = Num[Array, " B"] | Num[Array, "B 2"]
"""As the process feeds them; with `span_embed` a time and how far the step from it reaches."""


def starts(times: Times) -> Num[Array, " B"]:
    """The time of each sample, without how far the step from it reaches."""
    return times if times.ndim == 1 else times[:, 0]


def patchify(x: Float[Array, "B H W C"], patch_size: int) -> Float[Array, "B h w patch"]:
    """Cuts images into patches; a patch is laid out (row, column, channel)."""
    B, H, W, C = x.shape
    h, w = H // patch_size, W // patch_size
    x = x.reshape(B, h, patch_size, w, patch_size, C).swapaxes(2, 3)
    return x.reshape(B, h, w, patch_size * patch_size * C)


def unpatchify(x: Float[Array, "B h w patch"], patch_size: int) -> Float[Array, "B H W C"]:
    """Inverse of `patchify`."""
    B, h, w, _ = x.shape
    x = x.reshape(B, h, w, patch_size, patch_size, -1).swapaxes(2, 3)
    return x.reshape(B, h * patch_size, w * patch_size, -1)


def timestep_frequencies(
    timesteps: Num[Array, " B"], max_period: float, frequency_shift: float = 0.0
) -> Float[Array, "B 256"]:
    """Sinusoids of the timestep, cosines first, as DiT has them; always float32 (bfloat16 turns 750 into 752)."""
    half = _FREQUENCY_EMBEDDING_SIZE // 2
    exponent = jnp.arange(half, dtype=jnp.float32) / (half - frequency_shift)
    angles = timesteps.astype(jnp.float32)[:, None] * jnp.exp(-jnp.log(max_period) * exponent)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimestepEmbedding(nnx.Module):
    """Timestep -> sinusoids -> Linear, SiLU, Linear."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, last_init: nnx.Initializer = _normal_002):
        self.max_period, self.frequency_shift = config.timestep_max_period, config.timestep_frequency_shift
        self.fc1 = Linear(config, _FREQUENCY_EMBEDDING_SIZE, config.width, kernel_init=_normal_002, rngs=rngs)
        self.fc2 = Linear(config, config.width, config.width, kernel_init=last_init, rngs=rngs)

    def __call__(self, timesteps: Num[Array, " B"]) -> Float[Array, "B D"]:
        """Times are as the process feeds them: of DiT's full chain, 0 .. num_timesteps - 1."""
        frequencies = timestep_frequencies(timesteps, self.max_period, self.frequency_shift)
        return self.fc2(jax.nn.silu(self.fc1(frequencies)))


class SpanEmbedding(TimestepEmbedding):
    """The same for the time that a jump spans. It says nothing at first, so that a flow's weights start as they are."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs, last_init=_zeros)


class LabelEmbedding(nnx.Embed):
    """A row for each class, and a last one for the null label of classifier-free guidance."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        super().__init__(
            config.num_classes + 1,
            config.width,
            embedding_init=_normal_002,
            dtype=jnp.dtype(config.dtype),
            rngs=rngs,
        )


class FinalLayer(nnx.Module):
    """adaLN, then a Linear to the pixels of each patch."""

    def __init__(self, config: ModelConfig, out_channels: int, rngs: nnx.Rngs):
        D, self.eps = config.width, config.norm_eps
        self.adaln = Linear(config, D, 2 * D, kernel_init=_zeros, rngs=rngs)
        # The sum is kept in float32 whatever the factors are: guidance multiplies the difference of two outputs.
        self.linear = Linear(
            config,
            D,
            config.patch_size**2 * out_channels,
            kernel_init=_zeros,
            preferred_element_type=jnp.float32,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "B T D"], condition: Float[Array, "B D"]) -> Float[Array, "B T patch"]:
        shift, scale = jnp.split(self.adaln(condition), 2, axis=-1)
        return self.linear(modulate(layer_norm(x, self.eps), shift, scale))
