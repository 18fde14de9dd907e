"""The normalisation of blocks, of the last layer and of FiTv2's queries and keys."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from ledit_jax.ops.lanes import spread_over_lanes, sum_over_lanes

STATISTICS = "statistics"
"""The name, for `jax.checkpoint_policies`, of means and scales: small, and dear to compute."""


def layer_norm(x: Float[Array, "*leading D"], eps: float) -> Float[Array, "*leading D"]:
    """Normalises the last axis in float32, without learned scale and shift (in blocks, adaLN brings those)."""
    x, width = x.astype(jnp.float32), x.shape[-1]
    x = x - spread_over_lanes(checkpoint_name(sum_over_lanes(x) / width, STATISTICS), width)
    variance = sum_over_lanes(jnp.square(x)) / width
    return x * spread_over_lanes(checkpoint_name(jax.lax.rsqrt(variance + eps), STATISTICS), width)


def modulate(x: Float[Array, "B T D"], shift: Float[Array, "B D"], scale: Float[Array, "B D"]):
    """x * (1 + scale) + shift, one shift and scale for each sample."""
    return x * (1 + scale[:, None]) + shift[:, None]
