"""The programs that `--compile_only` compiles: the training step; a sampler's guided denoising step and the decoder."""

import dataclasses
import json
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
from ledit_jax.flops import decoder_flops, forward_flops, train_step_flops
from ledit_jax.models import abstract_params, make_network
from ledit_jax.models.autoencoders import PUBLISHED, AutoencoderSizes, abstract_vae, name_of
from ledit_jax.models.vae_slices import choose_slices
from ledit_jax.parallel.mesh import data_mesh, make_mesh
from ledit_jax.parallel.sharding import batch_sharding
from ledit_jax.sampling.decoding import DECODER_SHARE, check_vae, decode_latents
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


@dataclasses.dataclass(frozen=True)
class SamplingReport:
    """What sampling needs: a step, then the decoder, and the weights of both all the while."""

    step: Report
    decoder: Report | None
    """None for a model of pixels."""
    weights: int
    """Bytes of the network's and the decoder's, on each chip."""
    autoencoder: str = ""
    """Whose decoder it is, and why that."""

    @property
    def needed_bytes(self) -> int:
        """The larger program's, with the weights of the other."""
        if self.decoder is None or not (self.step.memory and self.decoder.memory):
            return max(report.needed_bytes for report in self._reports)
        beside = [self.weights - report.memory.arguments for report in self._reports]
        pairs = zip(self._reports, beside, strict=True)
        return max(report.needed_bytes + max(0, other) for report, other in pairs)

    @property
    def fits(self) -> bool:
        """Whether both do, one after the other."""
        return all(report.fits for report in self._reports) and self.needed_bytes <= self.step.capacity_bytes

    @property
    def _reports(self) -> list[Report]:
        return [report for report in (self.step, self.decoder) if report]

    def to_json(self) -> str:
        """The step's report on one line, with the decoder's in it."""
        decoder = json.loads(self.decoder.to_json()) if self.decoder else None
        both = {"decoder": decoder, "sampling_needed_bytes": self.needed_bytes, "fits": self.fits}
        both |= {"autoencoder": self.autoencoder} if self.decoder else {}
        return json.dumps(json.loads(self.step.to_json()) | both)

    def __str__(self) -> str:
        tables = [str(report) for report in self._reports]
        if self.decoder:
            needed = f"{self.needed_bytes / 2**30:.2f} GiB with the weights of both"
            fits = f"sampling fits       {'yes' if self.fits else 'NO'}: {needed}"
            tables.append(f"autoencoder         {self.autoencoder}\n{fits}")
        return "\n\n".join(tables)


def report_sampling(
    config: Config,
    name: str,
    height: int | None,
    width: int | None,
    batch_size: int,
    gib: float | None = None,
    vae: AutoencoderSizes | None = None,
) -> SamplingReport:
    """`report_denoising_step`, and for a model of latents `report_decoder`. Errors as theirs, and for a vae as those of
    `check_vae`."""
    if vae:
        check_vae(vae, config)
    step = report_denoising_step(config, name, height, width, batch_size)
    if config.autoencoder.kind == "none":
        return SamplingReport(step, None, 0)
    whose = "as its checkpoint says" if vae else "since no checkpoint of one is named"
    vae = vae or published_vae(config)
    network = make_network(config, make_process(config))
    held = jax.eval_shape(network.rounded, abstract_params(network)), abstract_vae(vae)[1]
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(held))
    decoder = report_decoder(config, name, height, width, batch_size, gib, vae)
    return SamplingReport(step, decoder, weights, f"{name_of(vae)}, {whose}")


def report_decoder(
    config: Config,
    name: str,
    height: int | None,
    width: int | None,
    batch_size: int,
    gib: float | None = None,
    vae: AutoencoderSizes | None = None,
) -> Report:
    """Compiles decoding as sample.py would run it on the slice.

    gib: memory that an image may take, as for `ledit_jax.sampling.decoding.decode`. vae: the autoencoder's
    sizes, by default `published_vae`. Otherwise as `report_denoising_step`.
    """
    topology, vae = parse_topology(name), vae or published_vae(config)
    mesh = data_mesh(describe_devices(topology))
    rows, columns, channels = config.latent_shape(height, width)
    memory = int((gib or DECODER_SHARE * topology.generation.hbm_gib / topology.generation.devices_per_chip) * 2**30)
    sliced = choose_slices(vae, rows, columns, memory, "tpu")
    graphdef, params = abstract_vae(vae)
    state = _place(params, NamedSharding(mesh, P()))
    shape = (batch_size * mesh.size, rows, columns, channels)
    latents = _place(jax.ShapeDtypeStruct(shape, np.float32), batch_sharding(mesh))
    _announce("decoder", topology)
    how = f"{sliced} of {len(vae.block_out_channels)} levels in slices" if sliced else "whole"
    flops = shape[0] * decoder_flops(vae, (rows, columns))
    program = f"decoder of {shape[0]} images, one by one, {how},"
    arguments = graphdef, state, latents, sliced, mesh if mesh.size > 1 else None
    return compile_for(topology, program, mesh, shape[0], flops, decode_latents, arguments)


def published_vae(config: Config) -> AutoencoderSizes:
    """That of the config's shape of latents; of a shape that none is known for, Stable Diffusion's stands in."""
    shape = config.downsample, config.in_channels
    return PUBLISHED.get(shape, PUBLISHED[8, 4])[1]


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
    options, process = config.sample, make_process(config)
    network = make_network(config, process).for_sampling(options)
    num_tokens = config.num_tokens(height, width)
    process = process.for_sampling(options)
    sampler, step = make_denoising_step(
        network, process, mesh, options.sampler, options.num_steps, num_tokens, options.cfg_channels
    )
    noise = jax.ShapeDtypeStruct((batch_size, *config.latent_shape(height, width)), np.float32)
    state = _place(jax.eval_shape(sampler.init, noise), split)
    keys = _place(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size)), split)
    condition = _place(jax.eval_shape(lambda: network.condition.null(batch_size)), split)
    params, is_guided = _place(jax.eval_shape(network.rounded, abstract_params(network)), whole), True
    return step, (params, state, 0, keys, condition, condition, options.cfg_scale, is_guided)


def _place(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)


def _announce(program: str, topology: Topology) -> None:
    logger.info(f"compiling the {program} for {topology.name}, {topology.chips} chips; for XL/2 this takes minutes")
