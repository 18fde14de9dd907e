"""Attention that stores the T x T logits: a float32 reference, the oracle of all backends, and one for short sequences.

B batch, T tokens (a prefix, then an h x w grid), N heads, K head dim.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ledit_jax.ops.scan_masks import scan_mask

# Large enough to vanish in a float32 softmax, small enough that no sum overflows.
_HIDDEN = -1e30


def dense_mask(
    scan: str, grid: tuple[int, int], causal: Bool[Array, " B"] | None, num_prefix: int = 0
) -> Bool[Array, "1 1 T T"] | Bool[Array, "B 1 T T"] | None:
    """The scan's mask, True = may attend, broadcast over heads and, without `causal`, over the batch; None: all may.

    Prefix tokens see all and are seen by all.
    """
    if scan == "none":
        return None
    mask = np.pad(scan_mask(scan, *grid), ((num_prefix, 0),) * 2, constant_values=True)
    mask = jnp.asarray(mask)[None, None]
    return mask if causal is None else mask | ~causal[:, None, None, None]


def reference_attention(
    q, k, v, *, grid, scan, causal, scale, num_prefix=0, bias=None, precision=None
) -> Float[Array, "B T N K"]:
    """As `ledit_jax.ops.attention.attention`, with `scale` on the logits in all: float32 einsums, always of the highest
    precision."""
    mask, f32 = dense_mask(scan, grid, causal, num_prefix), jnp.float32
    logits = jnp.einsum("btnk,bsnk->bnts", q.astype(f32), k.astype(f32), precision="highest") * scale
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = jnp.where(mask, logits, _HIDDEN)
    weights = jax.nn.softmax(logits, axis=-1)
    return jnp.einsum("bnts,bsnk->btnk", weights, v.astype(f32), precision="highest").astype(q.dtype)


def xla_attention(
    q, k, v, *, grid, scan, causal, scale, num_prefix=0, bias=None, precision=None
) -> Float[Array, "B T N K"]:
    """The same with products in the inputs' dtype; the softmax stays float32."""
    mask = dense_mask(scan, grid, causal, num_prefix)
    # Scaling q touches T x K numbers, scaling the logits T x T; batch dimensions lead so that no product transposes.
    q = (q.astype(jnp.float32) * scale).astype(q.dtype).swapaxes(1, 2)
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    logits = jnp.einsum("bntk,bnsk->bnts", q, k, precision=precision, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = jnp.where(mask, logits, _HIDDEN)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bnts,bnsk->bntk", weights, v, precision=precision).swapaxes(1, 2)
