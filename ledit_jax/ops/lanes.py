"""Sums over the last axis, which is where a TPU has its lanes."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import linear_call
from jaxtyping import Array, Float

from ledit_jax.ops.platform import current_platform
from ledit_jax.ops.rows import every_eighth


def sum_over_lanes(x: Float[Array, "*leading D"]) -> Float[Array, "*leading 1"]:
    """The sum over the last axis. On a TPU it is a matrix product.

    There the product takes a third of the sum's time, by the compiler's estimates, and adds up in float32 just so.
    """
    if current_platform() != "tpu":
        return x.sum(axis=-1, keepdims=True)
    width = x.shape[-1]
    return linear_call(lambda _, x: _product(x), lambda _, sums: _spread(sums, width), (), x)


def spread_over_lanes(sums: Float[Array, "*leading 1"], width: int) -> Float[Array, "*leading D"]:
    """Each number `width` times. Its gradient is `sum_over_lanes`, by a product on a TPU."""
    if current_platform() != "tpu":
        return _spread(sums, width)
    return linear_call(lambda _, sums: _spread(sums, width), lambda _, x: _product(x), (), sums)


def _spread(sums, width: int):
    return jnp.broadcast_to(sums, (*sums.shape[:-1], width))


def _product(x):
    groups = every_eighth(x.shape[-1], x.dtype).T
    contracted = ((x.ndim - 1,), (0,)), ((), ())
    sums = jax.lax.dot_general(x, groups, contracted, precision="highest", preferred_element_type=jnp.float32)
    return sums.sum(axis=-1, keepdims=True)
