"""What is printed before a run starts: device, network, data, memory and where to look, a row each."""

import math
from dataclasses import dataclass

from jax.sharding import Mesh

from ledit_jax.config import Config
from ledit_jax.data import Source
from ledit_jax.data.class_names import class_names
from ledit_jax.diffusion import make_process
from ledit_jax.files import Place
from ledit_jax.models import Network, make_network
from ledit_jax.ops.attention import stores_logits
from ledit_jax.parallel.memory import device_memory
from ledit_jax.parallel.mesh import BATCH_AXES

_MIB = 2**20
# Bytes of a training step by token, layer and channel in bfloat16, as the TPU compiler counts them for LEDiT-XL/2
# (benchmarks/results/compile_configs.json, without weights and gradients).
_ACTIVATIONS = {"none": 107, "dots": 33, "full": 10}
_OF_TWO_STREAMS = 1.6
"""What an MMDiT needs of that."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device: weights, their average and the optimizer's moments; gradients; what a step computes."""

    state: int
    gradients: int
    activations: int

    @property
    def total(self) -> int:
        """All of it at once."""
        return self.state + self.gradients + self.activations

    def __str__(self) -> str:
        parts = (self.total, self.state, self.gradients, self.activations)
        total, *parts = (_megabytes(part) for part in parts)
        return f"about {total}: state {parts[0]}, gradients {parts[1]}, activations {parts[2]}"


def estimate_memory(config: Config, num_params: int, axes: dict[str, int], stores_logits: bool) -> Memory:
    """What a device needs in training, within a third for networks like the paper's.

    axes: sizes of the mesh's axes. stores_logits: whether the attention backend keeps logits [T, T] for each head.
    """
    model, train = config.model, config.train
    weights = num_params // math.prod(size for name, size in axes.items() if name != "data")
    images = train.batch_size / train.accumulation_steps / math.prod(axes[name] for name in BATCH_AXES)
    itemsize, tokens = 2 if model.dtype == "bfloat16" else 4, config.num_tokens()
    cell = _ACTIVATIONS[model.remat] * itemsize / 2 * (_OF_TWO_STREAMS if model.network == "mmdit" else 1)
    activations = cell * tokens * model.depth * model.width / axes["tensor"]
    if stores_logits:  # and their softmax, for every layer, or for one at a time where they are computed again
        layers = model.depth if model.remat == "none" else 1
        attended = _network(config).attended(tokens)
        activations += layers * model.num_heads * attended**2 * (4 + itemsize) / axes["tensor"]
    gradients = 4 * weights * (1 if train.accumulation_steps == 1 else 2)
    return Memory(16 * weights, gradients, int(images * activations))


def attention_backend(config: Config, platform: str) -> str:
    """What attention runs in there."""
    return _network(config).attention_backend(config.num_tokens(), platform)


def _network(config: Config) -> Network:
    return make_network(config, make_process(config))


def summarise(config: Config, workdir: Place, mesh: Mesh, source: Source, num_params: int, step: int) -> str:
    """The table. num_params: of the network. step: the one that the run starts at."""
    model, train, data = config.model, config.train, config.data
    devices = mesh.devices.flatten().tolist()
    axes = dict(mesh.shape)
    backend = attention_backend(config, devices[0].platform)
    needed = estimate_memory(config, num_params, axes, stores_logits(backend))
    there = device_memory(devices[:1])
    grid = " x ".join(map(str, config.token_grid()))
    size = f"{data.image_height}x{data.image_width}"
    rest = f", in {train.accumulation_steps} parts" if train.accumulation_steps > 1 else ""
    rows = {
        "device": f"{len(devices)} x {devices[0].device_kind}, " + " x ".join(f"{n} {s}" for n, s in axes.items()),
        "network": f"{num_params:,} parameters, {model.dtype}, attention {backend}",
        "tokens": f"{config.num_tokens():,} ({grid}) of an image of {size}",
        "data": _describe_data(config, source),
        "batch": f"{train.batch_size}{rest}; an epoch is {len(source) / train.batch_size:,.1f} steps",
        "memory": f"{needed}, of {_megabytes(there)}{' (of the machine)' if devices[0].platform == 'cpu' else ''}",
        "steps": f"{step:,} to {train.num_steps:,}, saved every {train.checkpoint_every:,}",
        "watch": f"tensorboard --logdir={workdir}",
    }
    if needed.total > there:
        rows["memory"] += "; this is tight: a smaller batch, train.accumulation_steps or model.remat=full need less"
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows.items())


def _describe_data(config: Config, source: Source) -> str:
    place = f" in {config.data.path}" if config.data.path else ""
    text = f"{len(source):,} records of {config.data.source}{place}"
    if config.text.encoder != "none":
        return text
    count, names = config.model.num_classes, class_names(config)
    listed = f": {', '.join(names)}" if count <= 10 and all(names) else ""
    return f"{text}, {count:,} class{'' if count == 1 else 'es'}{listed}"


def _megabytes(count: int) -> str:
    return f"{count / _MIB / 1024:,.1f} GiB" if count >= 1024 * _MIB else f"{max(1, round(count / _MIB))} MiB"
