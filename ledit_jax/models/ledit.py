"""LEDiT (arXiv 2503.04344): a diffusion transformer that has no positional encoding.

A DiT (arXiv 2212.09748) with three changes: no positions are added, every other block attends causally over a 2-D
scan, and one 3x3 convolution follows patchify. The baselines are settings of the same class (`model_preset`).

B batch, H W height and width in latent cells, h w token grid, T tokens, C channels, P patch size, D width, L depth.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from ledit_jax.config import ModelConfig, attention_kinds
from ledit_jax.models import embed
from ledit_jax.models.attention import Attention, AttentionContext
from ledit_jax.models.conv import MultiDilationConv
from ledit_jax.models.embed import Times
from ledit_jax.models.fit import LowRankModulation, SwiGLU
from ledit_jax.models.linear import Linear
from ledit_jax.models.norm import layer_norm, modulate
from ledit_jax.models.positions import NoPosition
from ledit_jax.ops.attention import attention_scale
from ledit_jax.parallel.placement import split_batch

_xavier = nnx.initializers.xavier_uniform()
_zeros = nnx.initializers.zeros_init()

_REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class MLP(nnx.Module):
    """Linear, GELU (tanh form), Linear."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, F = config.width, int(config.width * config.mlp_ratio)
        self.fc1 = Linear(config, D, F, kernel_init=_xavier, rngs=rngs)
        self.fc2 = Linear(config, F, D, kernel_init=_xavier, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=True))


class Block(nnx.Module):
    """A DiT block with adaLN-Zero. Self-attention (SA) and causal attention (CA) differ in the scan alone."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.eps, self.dtype = config.norm_eps, jnp.dtype(config.dtype)
        self.attn = Attention(config, rngs)
        if config.block == "fit":
            self.mlp, self.adaln = SwiGLU(config, rngs), LowRankModulation(config, rngs)
        else:
            self.mlp = MLP(config, rngs)
            self.adaln = Linear(config, config.width, 6 * config.width, kernel_init=_zeros, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        condition: Float[Array, "B D"],
        context: AttentionContext,
        scan: str,
        bias_scale: Float[Array, ""] | None = None,
        shared: Float[Array, "B 6*D"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """(output, what attention mixed). `condition` has been through SiLU; `shared` is added to adaLN (FiTv2)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition, shared)
        h = modulate(layer_norm(x, self.eps), shift1, scale1).astype(self.dtype)
        attended, mixed = self.attn(h, context, scan, bias_scale)
        x = x + gate1[:, None] * attended
        h = modulate(layer_norm(x, self.eps), shift2, scale2).astype(self.dtype)
        return x + gate2[:, None] * self.mlp(h), mixed

    def modulation(
        self, condition: Float[Array, "B D"], shared: Float[Array, "B 6*D"] | None
    ) -> list[Float[Array, "B D"]]:
        """Shift, scale and gate of attention, then of the MLP."""
        modulation = self.adaln(condition)
        return jnp.split(modulation if shared is None else modulation + shared, 6, axis=-1)


class LEDiT(nnx.Module):
    """The network: noisy latents, times and labels in; what the process predicts out (noise and variance for DiT's).

    The L blocks are one `Block` whose parameters carry a leading axis of length L, whatever the block order, so that
    a checkpoint of one order starts another. The forward pass runs `lax.scan` over the order's repeating unit.
    """

    def __init__(
        self,
        config: ModelConfig,
        in_channels: int,
        out_channels: int,
        position: NoPosition,
        rngs: nnx.Rngs,
        causal_times: tuple[float, float] | None = None,
        trained_tokens: int | None = None,
    ):
        """causal_times: the closed interval of times in which scans apply, None is all of them. trained_tokens: scales
        attention beyond so many tokens (`attention_scale`); None never does."""
        D, self.residual = config.width, jnp.dtype(config.residual)
        self.config, self.position = config, position
        self.causal_times, self.trained_tokens = causal_times, trained_tokens
        self.patch_embed = Linear(config, config.patch_size**2 * in_channels, D, kernel_init=_xavier, rngs=rngs)
        self.timestep_embed = embed.TimestepEmbedding(config, rngs)
        self.label_embed = embed.LabelEmbedding(config, rngs)
        if config.span_embed:
            self.span_embed = embed.SpanEmbedding(config, rngs)
        self.position_table = position.init_table(D, rngs)
        if config.conv != "none":
            self.conv = MultiDilationConv(config, rngs)
        if config.post_norm:
            self.conv_norm = nnx.LayerNorm(D, epsilon=config.norm_eps, dtype=jnp.float32, rngs=rngs)
        if config.block == "fit":
            self.shared_adaln = Linear(config, D, 6 * D, kernel_init=_zeros, rngs=rngs)
        self.blocks = stack_blocks(config, rngs)
        self.final_layer = embed.FinalLayer(config, out_channels, rngs)

    def __call__(
        self, x: Float[Array, "B H W C"], times: Times, labels: Int[Array, " B"], dilation: int = 1
    ) -> Float[Array, "B H W out"]:
        """float32. labels: 0 .. num_classes - 1, or num_classes for none. dilation: of the convolution, more than 1 in
        training only."""
        x = self.embed(x, dilation)  # B h w D
        B, h, w, D = x.shape
        condition = self.embed_condition(times, labels)  # B D
        x, _ = self.run_blocks(x.reshape(B, h * w, D), condition, self.context((h, w), times))  # B T D
        x = self.final_layer(x, condition)  # B T PPC
        return embed.unpatchify(x.reshape(B, h, w, -1), self.config.patch_size).astype(jnp.float32)

    def embed(self, x: Float[Array, "B H W C"], dilation: int = 1) -> Float[Array, "B h w D"]:
        """The tokens that the blocks get: patches, positions where there are any, and the convolution."""
        x = split_batch(self.patch_embed(embed.patchify(x, self.config.patch_size)).astype(self.residual))
        x = self.position.add(x, self.position_table)
        if self.config.conv != "none":
            x = split_batch(self.conv(x, dilation).astype(self.residual))
        if self.config.post_norm:
            x = self.conv_norm(x).astype(x.dtype)
        return x

    def embed_condition(self, times: Times, labels: Int[Array, " B"]) -> Float[Array, "B D"]:
        """What adaLN is told."""
        told = self.timestep_embed(embed.starts(times)) + self.label_embed(labels)
        if self.config.span_embed:
            told = told + self.span_embed(times[:, 1])
        return split_batch(jax.nn.silu(told))

    def context(self, grid: tuple[int, int], times: Times) -> AttentionContext:
        """What attention is told: which samples are causal, its scale, and positions that act inside it."""
        causal, T = None, grid[0] * grid[1]
        if self.causal_times is not None:
            low, high = self.causal_times
            causal = (embed.starts(times) >= low) & (embed.starts(times) <= high)
        # Of an array's type and not Python's, as the same factor is to the bit when it is an argument of the program.
        scale = 1.0 if self.trained_tokens is None else np.float32(attention_scale(T, self.trained_tokens))
        return AttentionContext(grid, causal, scale, self.position.rotary(grid), self.position.bias(grid))

    def run_blocks(
        self, x: Float[Array, "B T D"], condition: Float[Array, "B D"], context: AttentionContext, keep: bool = False
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "L B T D"], Float[Array, "L B T D"]] | None]:
        """(output of the last block, of every block and before it what its attention mixed, if `keep`).

        Each segment's repeating unit runs in turn, so that every attention kind keeps a static mask.
        """
        config = self.config
        graphdef, params = nnx.split(self.blocks)
        scales = self.position.bias_scales(config.depth)
        layers = params, None if scales is None else jnp.asarray(scales)
        shared = self.shared_adaln(condition) if config.block == "fit" else None

        def run_block(kind, layer, x, condition, shared):
            params, bias_scale = layer
            scan = config.scan if kind == "ca" else "none"
            x, mixed = nnx.merge(graphdef, params)(x, condition, context, scan, bias_scale, shared)
            return x, (mixed, x) if keep else None

        if config.remat != "none":
            policy = _REMAT_POLICIES[config.remat]
            run_block = jax.checkpoint(run_block, policy=policy, prevent_cse=not config.scan_layers, static_argnums=0)

        kept = []
        for unit, repeats, units in self.segments(layers):

            def run_unit(x, layers, unit=unit):
                outputs = []
                for i, kind in enumerate(unit):
                    x, output = run_block(kind, _slice(layers, i), x, condition, shared)
                    x = split_batch(x)
                    outputs.append(output)
                return x, outputs

            if config.scan_layers:
                x, outputs = jax.lax.scan(run_unit, x, units)
                kept += [_slice(outputs, i)[j] for i in range(repeats) for j in range(len(unit))] if keep else []
            else:
                for i in range(repeats):
                    x, outputs = run_unit(x, _slice(units, i))
                    kept += outputs
        return x, jax.tree.map(lambda *layers: jnp.stack(layers), *kept) if keep else None

    def segments(self, layers):
        """(repeating unit, repeats, layers [repeats, len(unit), ...]) of each segment of the block order."""
        start = 0
        for unit, repeats in attention_kinds(self.config.block_order, self.config.depth):
            stop = start + len(unit) * repeats
            yield unit, repeats, jax.tree.map(lambda p: p[start:stop].reshape(repeats, -1, *p.shape[1:]), layers)  # noqa: B023
            start = stop


def _slice(tree, index: int):
    return jax.tree.map(lambda a: a[index], tree)


def stack_blocks(config: ModelConfig, rngs: nnx.Rngs) -> Block:
    """One Block whose parameters are those of `config.depth` blocks, stacked along a new leading axis."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Block(config, nnx.Rngs(0))))
    init = jax.vmap(lambda key: nnx.state(Block(config, nnx.Rngs(key))))
    return nnx.merge(graphdef, init(jax.random.split(rngs.params(), config.depth)))
