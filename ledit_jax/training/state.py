"""Everything a run is made of between two steps, as one pytree."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ledit_jax.config import TrainConfig
from ledit_jax.models import Network, Params, init_params
from ledit_jax.training.optimizer import make_optimizer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """step: optimiser steps behind us. nonfinite_steps: how many of them were dropped as not finite, since step 0.

    Leaves are arrays, or ShapeDtypeStructs where the state is abstract.
    """

    step: PyTree
    nonfinite_steps: PyTree
    params: Params
    ema: Params
    opt_state: PyTree


def init_state(
    network: Network,
    config: TrainConfig,
    key: jax.Array,
    params: Params | None = None,
    constants: Params | None = None,
) -> TrainState:
    """State at step 0, from `params` if given, else freshly initialised; the EMA starts as the parameters.

    constants: values of frozen parameters, by their top-level names.
    """
    params = init_params(network, key) if params is None else params
    params = params | (constants or {})
    zero = jnp.zeros((), jnp.int32)
    # A copy: the step donates its input, and two leaves must not share a buffer.
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(zero, zero + 0, params, ema, make_optimizer(config).init(params))
