"""The normalisation of blocks, of the last layer and of FiTv2's queries and keys."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def layer_norm(x: Float[Array, "*leading D"], eps: float) -> Float[Array, "*leading D"]:
    """Normalises the last axis in float32, without learned scale and shift (in blocks, adaLN brings those)."""
    x = x.astype(jnp.float32)
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + eps)


def modulate(x: Float[Array, "B T D"], shift: Float[Array, "B D"], scale: Float[Array, "B D"]):
    """x * (1 + scale) + shift, one shift and scale for each sample."""
    return x * (1 + scale[:, None]) + shift[:, None]
