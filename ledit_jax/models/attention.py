"""Multi-head attention with one fused projection for queries, keys and values."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ledit_jax.config import ModelConfig
from ledit_jax.models.linear import Linear
from ledit_jax.ops.attention import attention


class Attention(nnx.Module):
    """Self-attention over a token grid; which keys a query sees is an argument, not a property of the weights."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.num_heads, self.backend = config.num_heads, config.attention
        D, dtype = config.width, jnp.dtype(config.dtype)
        xavier = nnx.initializers.xavier_uniform()
        self.qkv = Linear(D, 3 * D, kernel_init=xavier, dtype=dtype, rngs=rngs)
        self.proj = Linear(D, D, kernel_init=xavier, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        grid: tuple[int, int],
        scan: str,
        causal: Bool[Array, " B"] | None = None,
        logit_scale: float | Float[Array, ""] = 1.0,
    ) -> Float[Array, "B T D"]:
        """See `ledit_jax.ops.attention.attention` for grid, scan, causal and logit_scale."""
        B, T, D = x.shape
        # Split before the heads are separated: the gradient is then one concatenation.
        q, k, v = (a.reshape(B, T, self.num_heads, -1) for a in jnp.split(self.qkv(x), 3, axis=-1))
        out = attention(q, k, v, grid=grid, scan=scan, causal=causal, logit_scale=logit_scale, backend=self.backend)
        return self.proj(out.reshape(B, T, D))
