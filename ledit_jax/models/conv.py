"""The multi-dilation convolution that follows patchify (LEDiT, equation 6)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ledit_jax.config import ModelConfig

_by_fan_in = nnx.initializers.variance_scaling(1.0, "fan_in", "uniform")


class MultiDilationConv(nnx.Module):
    """A 3x3 convolution whose dilation is chosen at each call, with one set of weights for all of them.

    Padding equals the dilation, so the grid keeps its size, and pads with zeros on purpose: the border is one of
    LEDiT's two sources of position. "dense" mixes all channels, "depthwise" keeps each to itself (the paper does
    not say which; dense is our reading). Initialised as the identity, fine-tuning starts from exactly the
    pretrained network.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, depthwise = config.width, config.conv == "depthwise"
        self.groups = D if depthwise else 1
        self.dtype, self.precision = jnp.dtype(config.dtype), config.precision
        # A depthwise kernel has shape [3, 3, 1, D], whose fan-out Xavier's rule would count as 9 D; each channel has 9
        # inputs and 9 outputs, for which Xavier's variance is that of the fan-in alone.
        xavier = _by_fan_in if depthwise else nnx.initializers.xavier_uniform()
        init = {"identity": _identity_kernel, "xavier": xavier, "identity_noise": _near_identity(xavier)}[
            config.conv_init
        ]
        self.kernel = nnx.Param(init(rngs.params(), (3, 3, 1 if depthwise else D, D), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(D))

    def __call__(self, x: Float[Array, "B h w D"], dilation: int = 1) -> Float[Array, "B h w D"]:
        """Training draws `dilation` per step; sampling always uses 1."""
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            window_strides=(1, 1),
            padding=((dilation, dilation), (dilation, dilation)),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
            precision=self.precision,
        )
        return y + self.bias[...].astype(self.dtype)


def _identity_kernel(key, shape, dtype):
    del key  # an initialiser's signature, and nothing here is random
    middle = jnp.ones((1, shape[3])) if shape[2] == 1 else jnp.eye(shape[2], shape[3])
    return jnp.zeros(shape, dtype).at[1, 1].set(middle)


def _near_identity(noise: nnx.Initializer) -> nnx.Initializer:
    """The identity and half of the noise: the zero padding then shows at the border from the first step on."""
    return lambda key, shape, dtype: _identity_kernel(key, shape, dtype) + 0.5 * noise(key, shape, dtype)
