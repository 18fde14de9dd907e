"""LEDiT (arXiv 2503.04344): a diffusion transformer that has no positional encoding.

A DiT (arXiv 2212.09748) with three changes: no positions are added, every other block attends causally over a 2-D
scan, and one 3x3 convolution follows patchify. The baselines are settings of the same class (`model_preset`).

B batch, H W height and width in latent cells, h w token grid, T tokens, C channels, P patch size, D width, L depth.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ledit_jax.config import attention_kinds
from ledit_jax.models import embed
from ledit_jax.models.attention import AttentionContext
from ledit_jax.models.backbone import Backbone
from ledit_jax.models.block import Block
from ledit_jax.models.embed import Times
from ledit_jax.models.linear import Linear
from ledit_jax.models.stack import run_stack, stack_blocks
from ledit_jax.parallel.placement import split_batch

_zeros = nnx.initializers.zeros_init()


class LEDiT(Backbone):
    """The network: noisy latents, times and labels in; what the process predicts out (noise and variance for DiT's).

    The L blocks are one `Block` whose parameters carry a leading axis of length L, whatever the block order, so that
    a checkpoint of one order starts another. The forward pass runs `lax.scan` over the order's repeating unit.
    """

    def init_condition(self, rngs: nnx.Rngs) -> None:
        self.label_embed = embed.LabelEmbedding(self.config, rngs)
        if self.config.span_embed:
            self.span_embed = embed.SpanEmbedding(self.config, rngs)

    def init_blocks(self, rngs: nnx.Rngs) -> None:
        config = self.config
        if config.block == "fit":
            self.shared_adaln = Linear(config, config.width, 6 * config.width, kernel_init=_zeros, rngs=rngs)
        self.blocks = stack_blocks(lambda rngs: Block(config, rngs), config.depth, rngs)

    def __call__(
        self,
        x: Float[Array, "B H W C"],
        times: Times,
        labels: Int[Array, " B"],
        dilation: int = 1,
        key: jax.Array | None = None,
    ) -> Float[Array, "B H W out"]:
        """float32. labels: 0 .. num_classes - 1, or num_classes for none. dilation: of the convolution, more than 1 in
        training only. key: for positions that training draws."""
        x = self.embed(x, dilation)  # B h w D
        B, h, w, D = x.shape
        condition = self.embed_condition(times, labels)  # B D
        context = self.context((h, w), times, key=key)
        x, _ = self.run_blocks(x.reshape(B, h * w, D), condition, context)  # B T D
        return self.pixels(x, condition, (h, w))

    def embed_condition(self, times: Times, labels: Int[Array, " B"]) -> Float[Array, "B D"]:
        """What adaLN is told."""
        told = self.timestep_embed(embed.starts(times)) + self.label_embed(labels)
        if self.config.span_embed:
            told = told + self.span_embed(times[:, 1])
        return split_batch(jax.nn.silu(told))

    def run_blocks(
        self, x: Float[Array, "B T D"], condition: Float[Array, "B D"], context: AttentionContext, keep: bool = False
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "L B T D"], Float[Array, "L B T D"]] | None]:
        """(output of the last block, of every block and before it what its attention mixed, if `keep`)."""
        config = self.config
        graphdef, params = nnx.split(self.blocks)
        scales = self.position.bias_scales(config.depth)
        layers = params, None if scales is None else jnp.asarray(scales)
        shared = self.shared_adaln(condition) if config.block == "fit" else None

        def run_block(kind, layer, x, told):
            params, bias_scale = layer
            scan = config.scan if kind == "ca" else "none"
            condition, shared = told
            x, mixed = nnx.merge(graphdef, params)(x, condition, context, scan, bias_scale, shared)
            return x, (mixed, x) if keep else None

        segments = attention_kinds(config.block_order, config.depth)
        return run_stack(run_block, segments, layers, x, (condition, shared), config, keep, self.in_place)
