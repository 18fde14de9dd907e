"""Multi-head attention with one fused projection for queries, keys and values."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from ledit_jax.config import ModelConfig
from ledit_jax.models.linear import Linear
from ledit_jax.models.norm import layer_norm
from ledit_jax.models.positions import Tables
from ledit_jax.models.rotary import rotate
from ledit_jax.ops.attention import attention

_QK_EPS = 1e-6  # of normalised queries and keys


@dataclass(frozen=True)
class AttentionContext:
    """What attention is told about the tokens, the same for every block."""

    grid: tuple[int, int]
    """(h, w) of the image's tokens."""
    causal: Bool[Array, " B"] | None = None
    """Samples for which a scan applies, see `ops.attention.attention`."""
    logit_scale: float | np.float32 | Float[Array, ""] = 1.0
    """See `ops.attention.attention_scale`."""
    rotary: Tables | None = None
    """Of rotary positions, if the model has them."""
    bias: np.ndarray | None = None
    """[N, T, T], added to the logits once multiplied by the block's own scale."""
    num_prefix: int = 0
    """Tokens before those of the image, see `ops.attention.attention`; T counts them."""


class Attention(nnx.Module):
    """Self-attention over a token grid; which keys a query sees is an argument, not a property of the weights."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, has_proj: bool = True):
        """has_proj: false where nobody reads these tokens' output."""
        self.num_heads, self.backend, self.precision = config.num_heads, config.attention, config.precision
        self.normalise = config.block == "fit"
        D, xavier = config.width, nnx.initializers.xavier_uniform()
        self.qkv = Linear(config, D, 3 * D, kernel_init=xavier, rngs=rngs)
        if has_proj:
            self.proj = Linear(config, D, D, kernel_init=xavier, rngs=rngs)
        self.has_qk_norm = config.qk_norm == "rms"
        if self.has_qk_norm:
            K = D // config.num_heads
            self.q_norm, self.k_norm = (nnx.RMSNorm(K, epsilon=_QK_EPS, dtype=jnp.float32, rngs=rngs) for _ in "qk")

    def __call__(
        self, x: Float[Array, "B T D"], context: AttentionContext, scan: str, bias_scale: Float[Array, ""] | None = None
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """(output, what attention mixed: the weighted sums of values, heads side by side, before the projection).

        scan: see `ledit_jax.ops.scan_masks`. bias_scale: factor of the context's bias in this block.
        """
        mixed = self.mix(*self.heads(x, context.rotary), context, scan, bias_scale)
        return self.proj(mixed), mixed

    def mix(
        self,
        q: Float[Array, "B T N K"],
        k: Float[Array, "B T N K"],
        v: Float[Array, "B T N K"],
        context: AttentionContext,
        scan: str,
        bias_scale: Float[Array, ""] | None = None,
    ) -> Float[Array, "B T D"]:
        """The weighted sums of values, heads side by side."""
        mixed = attention(
            q,
            k,
            v,
            grid=context.grid,
            scan=scan,
            causal=context.causal,
            logit_scale=context.logit_scale,
            bias=None if context.bias is None else context.bias * bias_scale,
            num_prefix=context.num_prefix,
            backend=self.backend,
            precision=self.precision,
        )
        return mixed.reshape(*q.shape[:2], -1)

    def heads(self, x: Float[Array, "B T D"], rotary: Tables | None) -> tuple[Float[Array, "B T N K"], ...]:
        """(q, k, v) as attention takes them, turned by rotary tables."""
        # Split before the heads are separated: the gradient is then one concatenation.
        q, k, v = (a.reshape(*a.shape[:2], self.num_heads, -1) for a in jnp.split(self.qkv(x), 3, axis=-1))
        if self.normalise:
            q, k = (layer_norm(a, _QK_EPS).astype(a.dtype) for a in (q, k))
        if self.has_qk_norm:
            q, k = self.q_norm(q).astype(q.dtype), self.k_norm(k).astype(k.dtype)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        return q, k, v
