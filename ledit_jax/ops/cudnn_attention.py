"""Attention in cuDNN's fused kernel, for NVIDIA GPUs: no T x T logits; the scan is one T x T mask for all heads.

B batch, T tokens (a prefix, then an h x w grid), N heads, K head dim.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ledit_jax.ops.dense_attention import dense_mask

# jax refuses gradients of odd lengths; rows of whole 16-byte words are what a mask's loads like.
_MULTIPLE = 8


def obstacle(platform: str, dtype: jnp.dtype, head_dim: int) -> str | None:
    """Why cuDNN cannot run there, and what can; None if it can."""
    if platform != "gpu":
        advice = "use splash" if platform == "tpu" else "use xla"
        return f"attention backend cudnn needs an NVIDIA GPU, and this is a {platform}: {advice}"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"attention backend cudnn takes bfloat16 or float16, not {dtype}: use xla, or model.dtype=bfloat16"
    capability = _compute_capability()
    if capability < 8.0:
        return "attention backend cudnn needs an NVIDIA GPU of compute capability 8.0 (Ampere) or newer: use xla"
    largest = 256 if capability >= 9.0 else 128
    if head_dim > largest or head_dim % 8:
        return f"attention backend cudnn takes head dims of 8, 16, ... {largest}, not {head_dim}: use xla"
    return None


def cudnn_attention(q, k, v, *, grid, scan, causal, scale, num_prefix=0) -> Float[Array, "B T N K"]:
    """As `ledit_jax.ops.attention.attention`, with `scale` on the logits in all."""
    T = q.shape[1]
    q = (q.astype(jnp.float32) * scale).astype(q.dtype)  # cuDNN's own scale cannot be traced
    mask = dense_mask(scan, grid, causal, num_prefix)
    padding = 0 if mask is None and T % 2 == 0 else -T % _MULTIPLE
    if padding:
        mask = jnp.ones((1, 1, T, T), bool) if mask is None else mask
        q, k, v = (jnp.pad(a, ((0, 0), (0, padding), (0, 0), (0, 0))) for a in (q, k, v))
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, padding)))
        # Queries that are padding see keys, so that no row of the softmax is empty.
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, padding), (0, 0)), constant_values=True)
    out = jax.nn.dot_product_attention(q, k, v, mask=mask, scale=1.0, implementation="cudnn")
    return out[:, :T]


def _compute_capability() -> float:
    """Of the first GPU, as in 9.0; 0 for other makers'."""
    try:
        return float(jax.devices("gpu")[0].compute_capability)
    except (AttributeError, RuntimeError, ValueError):
        return 0.0
