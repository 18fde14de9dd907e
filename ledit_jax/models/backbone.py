"""What LEDiT and MMDiT share around their blocks: image tokens in, pixels of patches out, and what attention is told.

B batch, H W height and width in latent cells, h w token grid, T tokens, C channels, P patch size, D width.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ledit_jax.config import ModelConfig
from ledit_jax.models import embed
from ledit_jax.models.attention import AttentionContext
from ledit_jax.models.conv import MultiDilationConv
from ledit_jax.models.embed import Times
from ledit_jax.models.linear import Linear
from ledit_jax.models.positions import NoPosition
from ledit_jax.ops.attention import attention_scale
from ledit_jax.parallel.placement import split_batch

_xavier = nnx.initializers.xavier_uniform()


class Backbone(nnx.Module):
    """A network without its blocks, which a subclass brings by `init_condition`, `init_blocks` and `__call__`."""

    def __init__(
        self,
        config: ModelConfig,
        in_channels: int,
        out_channels: int,
        position: NoPosition,
        rngs: nnx.Rngs,
        causal_times: tuple[float, float] | None = None,
        trained_tokens: int | None = None,
        in_place: bool = False,
    ):
        """causal_times: the closed interval of times in which scans apply, None is all of them. trained_tokens: scales
        attention beyond so many image tokens (`attention_scale`); None never does. in_place: as for `run_stack`."""
        D, self.residual = config.width, jnp.dtype(config.residual)
        self.config, self.position = config, position
        self.causal_times, self.trained_tokens, self.in_place = causal_times, trained_tokens, in_place
        # The order is that in which random numbers are drawn: it decides what a seed starts from.
        self.patch_embed = Linear(config, config.patch_size**2 * in_channels, D, kernel_init=_xavier, rngs=rngs)
        self.timestep_embed = embed.TimestepEmbedding(config, rngs)
        self.init_condition(rngs)
        self.position_table = position.init_table(D, rngs)
        if config.conv != "none":
            self.conv = MultiDilationConv(config, rngs)
        if config.post_norm:
            self.conv_norm = nnx.LayerNorm(D, epsilon=config.norm_eps, dtype=jnp.float32, rngs=rngs)
        self.init_blocks(rngs)
        self.final_layer = embed.FinalLayer(config, out_channels, rngs)

    def init_condition(self, rngs: nnx.Rngs) -> None:
        """Makes what embeds the condition."""
        raise NotImplementedError

    def init_blocks(self, rngs: nnx.Rngs) -> None:
        """Makes the blocks."""
        raise NotImplementedError

    def embed(self, x: Float[Array, "B H W C"], dilation: int = 1) -> Float[Array, "B h w D"]:
        """The tokens that the blocks get: patches, positions where there are any, and the convolution."""
        x = split_batch(self.patch_embed(embed.patchify(x, self.config.patch_size)).astype(self.residual))
        x = self.position.add(x, self.position_table)
        if self.config.conv != "none":
            x = split_batch(self.conv(x, dilation).astype(self.residual))
        if self.config.post_norm:
            x = self.conv_norm(x).astype(x.dtype)
        return x

    def context(
        self, grid: tuple[int, int], times: Times, num_prefix: int = 0, key: jax.Array | None = None
    ) -> AttentionContext:
        """What attention is told: which samples are causal, its scale, and positions that act inside it."""
        causal, T = None, grid[0] * grid[1]
        if self.causal_times is not None:
            low, high = self.causal_times
            causal = (embed.starts(times) >= low) & (embed.starts(times) <= high)
        # Of an array's type and not Python's, as the same factor is to the bit when it is an argument of the program.
        scale = 1.0 if self.trained_tokens is None else np.float32(attention_scale(T, self.trained_tokens))
        rotary, bias = self.position.rotary(grid, embed.starts(times), key), self.position.bias(grid)
        return AttentionContext(grid, causal, scale, rotary, bias, num_prefix)

    def pixels(
        self, x: Float[Array, "B T D"], condition: Float[Array, "B D"], grid: tuple[int, int]
    ) -> Float[Array, "B H W out"]:
        """The prediction, float32, from what the last block gave for the image."""
        x = self.final_layer(x, condition)  # B T PPC
        return embed.unpatchify(x.reshape(len(x), *grid, -1), self.config.patch_size).astype(jnp.float32)
