"""Scaled dot-product attention over a 2-D causal scan: one entry point, several backends with the same numbers.

B batch, T tokens (row-major over an h x w grid), N heads, K head dim.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ledit_jax.ops.scan_masks import scan_mask

# Large enough to vanish in a float32 softmax, small enough that no sum overflows.
_HIDDEN = -1e30


def attention(
    q: Float[Array, "B T N K"],
    k: Float[Array, "B T N K"],
    v: Float[Array, "B T N K"],
    *,
    grid: tuple[int, int],
    scan: str = "none",
    causal: Bool[Array, " B"] | None = None,
    logit_scale: float | Float[Array, ""] = 1.0,
    bias: Float[Array, "N T T"] | None = None,
    backend: str = "auto",
) -> Float[Array, "B T N K"]:
    """softmax(logit_scale * q k^T / sqrt(K), over the keys that `scan` shows) v, in the dtype of q.

    grid: (h, w) with h * w = T. causal: samples for which the scan applies; the others see every token (the
    timestep threshold of the paper's v3); None applies it to all. logit_scale: attention scaling at sampling
    (see `attention_scale`). bias: added to the logits of each head. The softmax is float32 whatever the inputs are.
    backend: "reference" is a float32 einsum at highest precision, the oracle of the others; "xla" computes
    products in the inputs' dtype; "auto" chooses.
    """
    mask = None if scan == "none" else jnp.asarray(scan_mask(scan, *grid))
    if mask is not None:
        mask = mask[None, None] if causal is None else mask | ~causal[:, None, None, None]
    compute = _reference if backend == "reference" else _xla
    return compute(q, k, v, mask, logit_scale / math.sqrt(q.shape[-1]), bias)


def attention_scale(num_tokens: int, trained_tokens: int) -> float:
    """sqrt(log N / log T), the logit multiplier for sampling N tokens after training on T; 1 where N <= T.

    LEDiT v3, appendix M, after Jin et al., arXiv 2306.08645: keeps the softmax's entropy as N grows.
    """
    if num_tokens <= trained_tokens or trained_tokens < 2:
        return 1.0
    return float(np.sqrt(np.log(num_tokens) / np.log(trained_tokens)))


def _reference(q, k, v, mask, scale, bias):
    f32 = jnp.float32
    logits = jnp.einsum("btnk,bsnk->bnts", q.astype(f32), k.astype(f32), precision="highest") * scale
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = jnp.where(mask, logits, _HIDDEN)
    weights = jax.nn.softmax(logits, axis=-1)
    return jnp.einsum("bnts,bsnk->btnk", weights, v.astype(f32), precision="highest").astype(q.dtype)


def _xla(q, k, v, mask, scale, bias):
    # Scaling q touches T x K numbers, scaling the logits T x T; batch dimensions lead so that no product transposes.
    q = (q.astype(jnp.float32) * scale).astype(q.dtype).swapaxes(1, 2)
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    logits = jnp.einsum("bntk,bnsk->bnts", q, k, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = jnp.where(mask, logits, _HIDDEN)
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bnts,bnsk->bntk", weights, v).swapaxes(1, 2)
