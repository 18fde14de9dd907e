"""The training step laid out over a mesh: the one program that the loop runs and that `--compile_only` compiles."""

import functools
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ledit_jax.config import Config, TrainConfig
from ledit_jax.diffusion import Process, make_process
from ledit_jax.models import Network, Params, make_network
from ledit_jax.parallel.sharding import batch_sharding, check_divisibility, shardings
from ledit_jax.training.state import TrainState, init_state
from ledit_jax.training.step import make_train_step, step_settings


class TrainProgram:
    """State, batch and step of a config on a mesh, before anything is allocated.

    `state` is an abstract TrainState whose leaves carry their shardings. Raises ConfigError if the mesh does not
    divide the batch or the width, or if its devices cannot run the attention backend that the config names.
    """

    def __init__(self, config: Config, mesh: Mesh, network: Network | None = None, process: Process | None = None):
        """network and process: by default those that the config describes."""
        check_divisibility(config, mesh)
        self.process = process or make_process(config)
        self.network = network or make_network(config, self.process)
        self.network.check_devices(mesh)
        self.config, self.mesh = config, mesh
        self.batch_sharding = batch_sharding(mesh)
        self.state, self._init, self.step = _programs(self.network, self.process, step_settings(config.train), mesh)

    def init(self, key: jax.Array, params: Params | None = None, constants: Params | None = None) -> TrainState:
        """State at step 0, made where it will live; from `params`, which it takes over, if given.

        constants: as for `init_state`.
        """
        return self._init(key, params, constants)

    def abstract_arguments(self) -> tuple[Any, ...]:
        """State, batch and key as `step` takes them, in shapes; dilation and `is_logged` follow."""
        size = self.config.train.batch_size
        x = jax.ShapeDtypeStruct((size, *self.config.latent_shape()), "float32")
        condition = jax.eval_shape(lambda: self.network.condition.null(size))
        batch = jax.tree.map(lambda a: _placed(a, self.batch_sharding), {"x": x, "condition": condition})
        key = jax.eval_shape(lambda: jax.random.key(0))
        return self.state, batch, _placed(key, NamedSharding(self.mesh, P()))


@functools.lru_cache(maxsize=8)
def _programs(network: Network, process: Process, config: TrainConfig, mesh: Mesh) -> tuple[TrainState, Any, Any]:
    """(abstract state, jitted init, jitted step): another run of the same in one process compiles nothing."""
    init = functools.partial(init_state, network, config)
    abstract = jax.eval_shape(lambda: init(jax.random.key(0)))
    placement = shardings(mesh, abstract)
    train_step = make_train_step(network, process, config)

    def step(state, batch, key, dilation, is_logged=True):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return train_step(state, batch, key, dilation, is_logged)

    return (
        jax.tree.map(_placed, abstract, placement),
        jax.jit(init, donate_argnums=1, out_shardings=placement),
        # The state leaves as it came: otherwise XLA would choose, and the next step would compile once more.
        jax.jit(step, static_argnums=3, donate_argnums=0, out_shardings=(placement, NamedSharding(mesh, P()))),
    )


def _placed(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
