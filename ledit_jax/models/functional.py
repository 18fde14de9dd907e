"""A network as pure functions over a plain nested dict of parameters, which is what everything above uses."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from ledit_jax.config import SampleConfig
from ledit_jax.models.condition import ConditionSpec

Params = dict[str, Any]
"""Nested dict of float32 arrays, named as the modules are: params["blocks"]["attn"]["qkv"]["kernel"]."""


class Network(ABC):
    """What training and sampling ask of a network.

    Implementations are frozen dataclasses of settings: equal ones are the same network, and share compiled programs.
    """

    condition: ConditionSpec
    frozen: tuple[str, ...] = ()
    """Top-level names of parameters that are never trained: a training step hands them on as they are."""
    is_random: bool = False
    """Whether its module draws something in training, from a `key` that it takes; without one it draws nothing."""

    @abstractmethod
    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        """The module, called as module(x [B, H, W, C], times [B], condition) -> [B, H, W, out_channels], float32.

        One whose convolution can be dilated in training takes `dilation` as well.
        """

    def for_sampling(self, options: SampleConfig) -> "Network":
        """The network as `options` want it drawn with: what differs from training is settled here."""
        return self

    def rounded(self, params: Params) -> Params:
        """The parameters as the network's products read them: for many calls with the same, none of which rounds anew.

        It gives the same numbers from both.
        """
        return params

    def least_logits(self, images: int, num_tokens: int, platform: str) -> int:
        """Bytes of attention's logits that the platform's devices hold at once, at least; 0 where kernels hold none."""
        return 0

    def check_devices(self, mesh: Mesh) -> None:  # noqa: B027 - most networks run anywhere
        """Raises ConfigError if the mesh's devices cannot run it."""


def init_params(network: Network, key: jax.Array) -> Params:
    """Freshly initialised parameters; `key` is a typed PRNG key."""
    return nnx.to_pure_dict(nnx.state(network.build(nnx.Rngs(key)), nnx.Param))


def abstract_params(network: Network) -> Params:
    """Shapes and dtypes of the parameters, with nothing allocated."""
    return jax.tree.map(lambda leaf: leaf, _abstract(network)[1])  # a copy: callers take such trees apart


def make_graphdef(network: Network) -> nnx.GraphDef:
    """The module without its parameters; `nnx.merge(graphdef, params)` is the module."""
    return _abstract(network)[0]


@functools.lru_cache(maxsize=32)
def _abstract(network: Network) -> tuple[nnx.GraphDef, Params]:
    graphdef, params = jax.eval_shape(lambda: nnx.split(network.build(nnx.Rngs(0)), nnx.Param))
    return graphdef, nnx.to_pure_dict(params)


def make_apply(network: Network) -> Callable[..., jax.Array]:
    """apply(params, x, times, condition, dilation=1, key=None): the module's call as a pure function.

    key: for networks that draw something in training, the others ignore it.
    """
    graphdef = make_graphdef(network)

    def apply(params: Params, x, times, condition, dilation: int = 1, key: jax.Array | None = None) -> jax.Array:
        options: dict[str, Any] = {} if dilation == 1 else {"dilation": dilation}
        if network.is_random and key is not None:
            options["key"] = key
        return nnx.merge(graphdef, params)(x, times, condition, **options)

    return apply


def round_for_products(params: PyTree, dtype: str) -> PyTree:
    """Kernels and biases in the dtype that products are computed in; those of norms, and all else, as they are."""

    def cast(path, leaf):
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        is_read = not {"kernel", "bias"}.isdisjoint(names) and not any("norm" in name for name in names)
        return leaf.astype(dtype) if is_read and leaf.dtype != dtype else leaf

    return jax.tree_util.tree_map_with_path(cast, params)


def count_params(params: Params) -> int:
    """Number of scalars, of abstract parameters too."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
