"""What goes on inside a trained network: the output of each block, and of its attention before the projection."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from experiments.study.images import Samples, real_images
from experiments.study.photos import real_photographs
from ledit_jax.config import Config, ModelConfig, attention_kinds
from ledit_jax.data.transforms import to_float
from ledit_jax.diffusion import make_process
from ledit_jax.errors import ConfigError
from ledit_jax.models import Params, make_network
from ledit_jax.models.attention import AttentionContext
from ledit_jax.models.functional import make_graphdef
from ledit_jax.models.ledit import LEDiT


@dataclass(frozen=True)
class BlockOutput:
    """One block. `mixed` is attention's weighted sum of values, heads side by side."""

    mixed: Float[Array, "B T D"]
    output: Float[Array, "B T D"]


@dataclass(frozen=True)
class Entrance:
    """A network before its first block."""

    model: LEDiT
    tokens: Float[Array, "B T D"]
    condition: Float[Array, "B D"]
    context: AttentionContext


def enter(
    params: Params, config: Config, x: Float[Array, "B H W C"], timesteps: Num[Array, " B"], labels: Int[Array, " B"]
) -> Entrance:
    """The network as sampling has it, with attention scaling beyond the trained size, and what its blocks get."""
    scaled = dataclasses.replace(config.sample, attention_scaling="on")
    network = make_network(config, make_process(config)).for_sampling(scaled)
    model = nnx.merge(make_graphdef(network), params)
    tokens = model.embed(x)
    B, h, w, D = tokens.shape
    condition, context = model.embed_condition(timesteps, labels), model.context((h, w), timesteps)
    return Entrance(model, tokens.reshape(B, h * w, D), condition, context)


def block_outputs(
    params: Params, config: Config, x: Float[Array, "B H W C"], timesteps: Num[Array, " B"], labels: Int[Array, " B"]
) -> list[BlockOutput]:
    """Every block's outputs, in order, as sampling computes them."""
    start = enter(params, config, x, timesteps, labels)
    _, (mixed, outputs) = start.model.run_blocks(start.tokens, start.condition, start.context, keep=True)
    return [BlockOutput(*layer) for layer in zip(mixed, outputs, strict=True)]


def block_kinds(config: ModelConfig) -> list[str]:
    """ "sa" or "ca" of each block."""
    units = attention_kinds(config.block_order, config.depth)
    return [kind for unit, repeats in units for kind in unit * repeats]


def noisy_images(
    config: Config, height: int, width: int, count: int, timestep: int, seed: int
) -> tuple[Float[Array, "B H W C"], Num[Array, " B"], Int[Array, " B"]]:
    """(x_t, times as the network is fed them, labels): the first real training images at a size, noised to a timestep.

    timestep: of a diffusion; of a flow's times as many thousandths.

    Raises ConfigError for a model of other data than drawn sources and image folders, and for a size or timestep that
    cannot be.
    """
    if not 0 <= timestep < config.diffusion.num_timesteps:
        raise ConfigError(f"timestep={timestep} is not between 0 and {config.diffusion.num_timesteps - 1}")
    config.latent_shape(height, width)
    real = _training_images(config, height, width, count)
    images, labels = real.images[:count], real.labels[:count].astype(np.int32)
    x0 = np.repeat(to_float(images), config.data.image_channels // images.shape[-1], axis=-1)
    noise = np.random.default_rng(seed).standard_normal(x0.shape, np.float32)
    is_flow, process = config.diffusion.objective == "flow", make_process(config)
    times = jnp.full(len(labels), timestep / config.diffusion.num_timesteps if is_flow else timestep)
    x = process.add_noise(jnp.asarray(x0), times, jnp.asarray(noise))
    return x, process.fed_times(times), jnp.asarray(labels)


def _training_images(config: Config, height: int, width: int, count: int) -> Samples:
    data = config.data
    if data.source != "image_folder":
        return real_images(data.source, height, width, "train")
    folder = Path(data.path)
    return real_photographs(folder.parent, data.image_channels, height, width, folder.name, count)


def parse_timesteps(items: Sequence[str]) -> list[int]:
    """["999", "500"] -> [999, 500]. Raises ConfigError for what is no whole number."""
    if not items or not all(len(item) < 10 and item.strip().isdecimal() for item in items):
        raise ConfigError(f"--timesteps={','.join(items)}: write whole numbers, as in 999,500")
    return [int(item) for item in items]
