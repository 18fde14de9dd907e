"""The two programs that `--compile_only` compiles: the training step, and a sampler's guided denoising step."""

import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ledit_jax.compile_only.report import Report, compile_for
from ledit_jax.compile_only.topology import Topology, describe_devices, parse_topology
from ledit_jax.config import Config
from ledit_jax.diffusion import make_process
from ledit_jax.flops import forward_flops, train_step_flops
from ledit_jax.models import abstract_params, make_network
from ledit_jax.parallel.mesh import data_mesh, make_mesh
from ledit_jax.parallel.sharding import batch_sharding
from ledit_jax.sampling.denoising import make_denoising_step
from ledit_jax.training.program import TrainProgram

logger = logging.getLogger(__name__)


def report_train_step(config: Config, name: str) -> Report:
    """Compiles the step that train.py would run on the slice called `name`, with the shardings it would have.

    Dilated steps are a second program of the same size. Raises ConfigError, before anything compiles, for a slice
    that is unknown, a mesh that does not multiply to its devices or a batch that it does not divide.
    """
    topology = parse_topology(name)
    mesh = make_mesh(config.mesh, describe_devices(topology))
    program, dilation = TrainProgram(config, mesh), 1
    _announce("training step", topology)
    return compile_for(
        topology,
        f"training step of {config.train.batch_size}",
        mesh,
        config.train.batch_size,
        train_step_flops(program.state.params, config.token_grid(), config.train.batch_size),
        program.step,
        (*program.abstract_arguments(), dilation, np.bool_(False)),
    )


def report_denoising_step(config: Config, name: str, height: int | None, width: int | None, batch_size: int) -> Report:
    """Compiles one guided step of the config's sampler as sample.py would run it on the slice, images split over its
    devices.

    Sizes in pixels, by default the training size. batch_size: images on each device, as in sample.py. Raises
    ConfigError as `report_train_step` does.
    """
    topology = parse_topology(name)
    mesh = data_mesh(describe_devices(topology))
    batch_size *= mesh.size
    step, arguments = denoising_program(config, mesh, height, width, batch_size)
    _announce("denoising step", topology)
    return compile_for(
        topology,
        f"{config.sample.sampler} step of {batch_size} images, guided",
        mesh,
        batch_size,
        2 * batch_size * forward_flops(arguments[0], config.token_grid(height, width)),
        step,
        arguments,
    )


def denoising_program(
    config: Config, mesh: Mesh, height: int | None, width: int | None, batch_size: int
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """(jitted step, abstract arguments) of a guided step, the images split over the mesh's axis `data`."""
    whole, split = NamedSharding(mesh, P()), batch_sharding(mesh)

    def place(tree, sharding):
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)

    options, process = config.sample, make_process(config)
    network = make_network(config, process).for_sampling(options)
    num_tokens = config.num_tokens(height, width)
    process = process.for_sampling(options)
    sampler, step = make_denoising_step(
        network, process, mesh, options.sampler, options.num_steps, num_tokens, options.cfg_channels
    )
    noise = jax.ShapeDtypeStruct((batch_size, *config.latent_shape(height, width)), np.float32)
    state = place(jax.eval_shape(sampler.init, noise), split)
    keys = place(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size)), split)
    condition = place(jax.eval_shape(lambda: network.condition.null(batch_size)), split)
    params, is_guided = place(jax.eval_shape(network.rounded, abstract_params(network)), whole), True
    return step, (params, state, 0, keys, condition, condition, options.cfg_scale, is_guided)


def _announce(program: str, topology: Topology) -> None:
    logger.info(f"compiling the {program} for {topology.name}, {topology.chips} chips; for XL/2 this takes minutes")
