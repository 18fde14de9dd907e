"""The linear layer of every module."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from ledit_jax.config import ModelConfig
from ledit_jax.ops.rows import add_to_rows

PRODUCT = "product"
"""The name, for `jax.checkpoint_policies`, of what linear layers return."""


class Linear(nnx.Linear):
    """nnx.Linear over flattened leading axes, in the dtype and precision of a model's config.

    A matrix product of two axes and its gradients are what every backend does best: on CPU, XLA takes four times
    as long for the gradients of the same product over [B, T, D].
    """

    def __init__(
        self,
        config: ModelConfig,
        in_features: int,
        out_features: int,
        *,
        kernel_init: nnx.Initializer,
        rngs: nnx.Rngs,
        preferred_element_type: type | None = None,
    ):
        """preferred_element_type: of the sum, by default the dtype of the factors."""
        super().__init__(
            in_features,
            out_features,
            kernel_init=kernel_init,
            dtype=jnp.dtype(config.dtype),
            precision=config.precision,
            dot_general=_product(preferred_element_type),
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "*leading D"]) -> Float[Array, "*leading F"]:
        rows = x.reshape(-1, x.shape[-1])
        rows, kernel, bias = (a.astype(self.dtype) for a in (rows, self.kernel[...], self.bias[...]))
        out = add_to_rows(self.dot_general(rows, kernel, (((1,), (0,)), ((), ())), precision=self.precision), bias)
        # With its bias: what is kept for the backward pass is then what the next layer reads, and is written once.
        return checkpoint_name(out, PRODUCT).reshape(*x.shape[:-1], out.shape[-1])


@functools.cache  # one object for each dtype: modules are compared by what they hold
def _product(dtype: type | None) -> Callable[..., Any]:
    """A matrix product whose sum is of a dtype. Flax before 0.12 has no argument for it."""
    return functools.partial(jax.lax.dot_general, preferred_element_type=dtype) if dtype else jax.lax.dot_general
