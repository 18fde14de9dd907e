"""LEDiT (arXiv 2503.04344): a diffusion transformer that has no positional encoding.

A DiT (arXiv 2212.09748) with three changes: no positions are added, every other block attends causally over a 2-D
scan, and one 3x3 convolution follows patchify. The baselines are settings of the same class (`model_preset`).

B batch, H W height and width in latent cells, h w token grid, T tokens, C channels, P patch size, D width, L depth.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ledit_jax.config import ModelConfig, attention_kinds
from ledit_jax.models.attention import Attention, TokenGrid
from ledit_jax.models.conv import MultiDilationConv
from ledit_jax.models.embed import LabelEmbedding, TimestepEmbedding, patchify, unpatchify
from ledit_jax.models.fit import LowRankModulation, SwiGLU
from ledit_jax.models.linear import Linear
from ledit_jax.models.lookhere import layer_slopes, lookhere_bias
from ledit_jax.models.norm import layer_norm
from ledit_jax.models.position import resize_table, sincos_table
from ledit_jax.models.rotary import rotary_tables
from ledit_jax.parallel.placement import split_batch

_xavier = nnx.initializers.xavier_uniform()
_zeros = nnx.initializers.zeros_init()
_normal_002 = nnx.initializers.normal(0.02)

_REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def modulate(x: Float[Array, "B T D"], shift: Float[Array, "B D"], scale: Float[Array, "B D"]):
    """x * (1 + scale) + shift, one shift and scale for each sample."""
    return x * (1 + scale[:, None]) + shift[:, None]


class MLP(nnx.Module):
    """Linear, GELU (tanh form), Linear."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, F, dtype = config.width, int(config.width * config.mlp_ratio), jnp.dtype(config.dtype)
        self.fc1 = Linear(D, F, kernel_init=_xavier, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(F, D, kernel_init=_xavier, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=True))


class Block(nnx.Module):
    """A DiT block with adaLN-Zero. Self-attention (SA) and causal attention (CA) differ in the scan alone."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.dtype)
        self.eps = config.norm_eps
        self.attn = Attention(config, rngs)
        if config.block == "fit":
            self.mlp, self.adaln = SwiGLU(config, rngs), LowRankModulation(config, rngs)
        else:
            self.mlp = MLP(config, rngs)
            self.adaln = Linear(config.width, 6 * config.width, kernel_init=_zeros, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        condition: Float[Array, "B D"],
        grid: TokenGrid,
        scan: str,
        bias_slope: Float[Array, ""] | None = None,
        shared: Float[Array, "B 6*D"] | None = None,
    ) -> Float[Array, "B T D"]:
        """`condition` has been through SiLU; `shared` is added to adaLN (FiTv2); the others are attention's."""
        modulation = self.adaln(condition)
        if shared is not None:
            modulation = modulation + shared
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation, 6, axis=-1)
        h = modulate(layer_norm(x, self.eps), shift1, scale1).astype(x.dtype)
        x = x + gate1[:, None] * self.attn(h, grid, scan, bias_slope)
        h = modulate(layer_norm(x, self.eps), shift2, scale2).astype(x.dtype)
        return x + gate2[:, None] * self.mlp(h)


class FinalLayer(nnx.Module):
    """adaLN, then a Linear to the pixels of each patch."""

    def __init__(self, config: ModelConfig, out_channels: int, rngs: nnx.Rngs):
        D, dtype = config.width, jnp.dtype(config.dtype)
        self.eps = config.norm_eps
        self.adaln = Linear(D, 2 * D, kernel_init=_zeros, dtype=dtype, rngs=rngs)
        self.linear = Linear(D, config.patch_size**2 * out_channels, kernel_init=_zeros, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"], condition: Float[Array, "B D"]) -> Float[Array, "B T patch"]:
        shift, scale = jnp.split(self.adaln(condition), 2, axis=-1)
        return self.linear(modulate(layer_norm(x, self.eps), shift, scale))


class LEDiT(nnx.Module):
    """The network: noisy latents, timesteps and labels in; predicted noise and variance out.

    The L blocks are one `Block` whose parameters carry a leading axis of length L, whatever the block order, so that
    a checkpoint of one order starts another. The forward pass runs `lax.scan` over the order's repeating unit.
    """

    def __init__(self, config: ModelConfig, in_channels: int, rngs: nnx.Rngs, trained_grid: tuple[int, int] = (16, 16)):
        """trained_grid: (rows, columns) of tokens in training, from where some positions are extrapolated."""
        D, dtype = config.width, jnp.dtype(config.dtype)
        self.config, self.trained_grid = config, trained_grid
        self.patch_embed = Linear(config.patch_size**2 * in_channels, D, kernel_init=_xavier, dtype=dtype, rngs=rngs)
        self.timestep_embed = TimestepEmbedding(config, rngs)
        self.label_embed = LabelEmbedding(config, rngs)
        if config.position == "learnable":
            self.position_table = nnx.Param(_normal_002(rngs.params(), (*trained_grid, D), jnp.float32))
        if config.conv != "none":
            self.conv = MultiDilationConv(config, rngs)
        if config.post_norm:
            self.conv_norm = nnx.LayerNorm(D, epsilon=config.norm_eps, dtype=jnp.float32, rngs=rngs)
        if config.block == "fit":
            self.shared_adaln = Linear(D, 6 * D, kernel_init=_zeros, dtype=dtype, rngs=rngs)
        self.blocks = stack_blocks(config, rngs)
        self.final_layer = FinalLayer(config, 2 * in_channels, rngs)

    def __call__(
        self,
        x: Float[Array, "B H W C"],
        timesteps: Int[Array, " B"],
        labels: Int[Array, " B"],
        *,
        dilation: int = 1,
        logit_scale: float | Float[Array, ""] = 1.0,
        rope_method: str = "plain",
    ) -> Float[Array, "B H W 2*C"]:
        """Predicts noise (first C channels) and the variance's interpolation v (last C), float32.

        timesteps: 0 .. num_timesteps - 1. labels: 0 .. num_classes - 1, or num_classes for none. dilation: of the
        convolution, more than 1 in training only. logit_scale: see `ops.attention.attention_scale`. rope_method:
        what is done to rotary positions beyond the training grid, see `models.rotary`.
        """
        x = self.embed(x, dilation)  # B h w D
        B, h, w, D = x.shape
        condition = self.embed_condition(timesteps, labels)  # B D
        grid = self.token_grid(h, w, timesteps, logit_scale, rope_method)
        x = self.run_blocks(x.reshape(B, h * w, D), condition, grid)  # B T D

        x = self.final_layer(x, condition)  # B T PP2C
        return unpatchify(x.reshape(B, h, w, -1), self.config.patch_size).astype(jnp.float32)

    def embed(self, x: Float[Array, "B H W C"], dilation: int = 1) -> Float[Array, "B h w D"]:
        """The tokens that the blocks get: patches, positions where there are any, and the convolution."""
        x = self.add_positions(split_batch(self.patch_embed(patchify(x, self.config.patch_size))))
        if self.config.conv != "none":
            x = split_batch(self.conv(x, dilation))
        if self.config.post_norm:
            x = self.conv_norm(x).astype(x.dtype)
        return x

    def embed_condition(self, timesteps: Int[Array, " B"], labels: Int[Array, " B"]) -> Float[Array, "B D"]:
        """What adaLN is told."""
        return split_batch(jax.nn.silu(self.timestep_embed(timesteps) + self.label_embed(labels)))

    def add_positions(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        """Adds the table of the baselines that have one; LEDiT returns x as it is."""
        if self.config.position == "sincos":
            return x + sincos_table(*x.shape[1:]).astype(x.dtype)
        if self.config.position == "learnable":
            return x + resize_table(self.position_table[...], x.shape[1:3]).astype(x.dtype)
        return x

    def token_grid(self, h: int, w: int, timesteps, logit_scale, rope_method: str) -> TokenGrid:
        """What attention is told about the tokens: which samples are causal, and positions that act inside it."""
        config = self.config
        causal = timesteps >= config.causal_from_timestep if config.causal_from_timestep else None
        rotary = bias = None
        if config.position == "rope":
            rotary = rotary_tables((h, w), self.trained_grid, config.width // config.num_heads, rope_method)
        elif config.position == "lookhere":
            bias = lookhere_bias(h, w, config.num_heads)
        return TokenGrid((h, w), causal, logit_scale, rotary, bias)

    def run_blocks(
        self, x: Float[Array, "B T D"], condition: Float[Array, "B D"], grid: TokenGrid
    ) -> Float[Array, "B T D"]:
        """Runs each segment's repeating unit in turn, so that every attention kind keeps a static mask."""
        config = self.config
        graphdef, params = nnx.split(self.blocks)
        layers = params, jnp.asarray(layer_slopes(config.depth)) if config.position == "lookhere" else None
        shared = self.shared_adaln(condition) if config.block == "fit" else None

        def run_block(kind, layer, x, condition, shared):
            params, slope = layer
            scan = config.scan if kind == "ca" else "none"
            return nnx.merge(graphdef, params)(x, condition, grid, scan, slope, shared)

        if config.remat != "none":
            policy = _REMAT_POLICIES[config.remat]
            run_block = jax.checkpoint(run_block, policy=policy, prevent_cse=not config.scan_layers, static_argnums=0)

        start = 0
        for unit, repeats in attention_kinds(config.block_order, config.depth):

            def run_unit(x, layers, unit=unit):
                for i, kind in enumerate(unit):
                    x = split_batch(run_block(kind, _slice(layers, i), x, condition, shared))
                return x, None

            stop = start + len(unit) * repeats
            units = jax.tree.map(lambda p, a=start, b=stop, n=repeats: p[a:b].reshape(n, -1, *p.shape[1:]), layers)
            if config.scan_layers:
                x, _ = jax.lax.scan(run_unit, x, units)
            else:
                for i in range(repeats):
                    x, _ = run_unit(x, _slice(units, i))
            start = stop
        return x


def _slice(params, index: int):
    return jax.tree.map(lambda p: p[index], params)


def stack_blocks(config: ModelConfig, rngs: nnx.Rngs) -> Block:
    """One Block whose parameters are those of `config.depth` blocks, stacked along a new leading axis."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Block(config, nnx.Rngs(0))))
    init = jax.vmap(lambda key: nnx.state(Block(config, nnx.Rngs(key))))
    return nnx.merge(graphdef, init(jax.random.split(rngs.params(), config.depth)))
