"""The model as two pure functions over a plain nested dict of parameters, which is what everything above uses."""

import math
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from ledit_jax.config import Config
from ledit_jax.models.ledit import LEDiT

Params = dict[str, Any]
"""Nested dict of float32 arrays, named as the modules are: params["blocks"]["attn"]["qkv"]["kernel"]."""


def init_params(config: Config, key: jax.Array) -> Params:
    """Freshly initialised parameters; `key` is a typed PRNG key."""
    model = LEDiT(config.model, config.in_channels, nnx.Rngs(key), config.token_grid)
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def abstract_params(config: Config) -> Params:
    """Shapes and dtypes of the parameters, with nothing allocated."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


def make_graphdef(config: Config) -> nnx.GraphDef:
    """The model without its parameters; `nnx.merge(graphdef, params)` is the model."""
    return nnx.graphdef(nnx.eval_shape(lambda: LEDiT(config.model, config.in_channels, nnx.Rngs(0), config.token_grid)))


def make_apply(config: Config) -> Callable[..., jax.Array]:
    """apply(params, x, timesteps, labels, **keywords): `LEDiT.__call__` as a pure function, with its keywords."""

    graphdef = make_graphdef(config)

    def apply(params: Params, x, timesteps, labels, *, dilation=1, logit_scale=1.0, rope_method="plain") -> jax.Array:
        model = nnx.merge(graphdef, params)
        return model(x, timesteps, labels, dilation=dilation, logit_scale=logit_scale, rope_method=rope_method)

    return apply


def count_params(params: Params) -> int:
    """Number of scalars, of abstract parameters too."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
