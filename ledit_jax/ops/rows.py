"""A vector that is added to every row of a matrix, as biases are."""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import linear_call
from jaxtyping import Array, Float

from ledit_jax.ops.platform import current_platform

_GROUPS = 8


def add_to_rows(x: Float[Array, "R F"], bias: Float[Array, " F"]) -> Float[Array, "R F"]:
    """x + bias. On a TPU its gradient, the sum over rows, is a matrix product.

    There the product takes a fortieth of the sum's time, by the compiler's estimates, and adds up in float32 just so.
    """
    return _add(x, bias) if current_platform() == "tpu" and x.dtype == bias.dtype else x + bias


@jax.custom_jvp
def _add(x, bias):
    return x + bias


@_add.defjvp
def _tangent(primals, tangents):
    to_x, to_bias = tangents
    spread = linear_call(lambda _, vector: jnp.broadcast_to(vector, to_x.shape), _sum_of_rows, (), to_bias)
    return _add(*primals), to_x + spread


def every_eighth(count: int, dtype: jnp.dtype) -> Float[Array, "8 {count}"]:
    """What a product adds up every eighth of `count` rows with, each eighth by itself, which leaves eight to add.

    A product with ones alone XLA would make a sum again.
    """
    return (jnp.arange(count) % _GROUPS == jnp.arange(_GROUPS)[:, None]).astype(dtype)


def _sum_of_rows(_, gradient: Float[Array, "R F"]) -> Float[Array, " F"]:
    groups = every_eighth(len(gradient), gradient.dtype)
    sums = jax.lax.dot(groups, gradient, precision="highest", preferred_element_type=jnp.float32)
    return sums.sum(axis=0).astype(gradient.dtype)
