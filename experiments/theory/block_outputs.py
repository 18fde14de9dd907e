"""What goes on inside a trained network: the output of each block, and of its attention before the projection."""

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from experiments.study.images import real_images
from ledit_jax.config import Config
from ledit_jax.data.transforms import to_float
from ledit_jax.diffusion import make_process
from ledit_jax.errors import ConfigError
from ledit_jax.models import Params, make_network
from ledit_jax.models.functional import make_graphdef


@dataclass(frozen=True)
class BlockOutput:
    """One block. `mixed` is attention's weighted sum of values, heads side by side."""

    mixed: Float[Array, "B T D"]
    output: Float[Array, "B T D"]


def block_outputs(
    params: Params, config: Config, x: Float[Array, "B H W C"], timesteps: Int[Array, " B"], labels: Int[Array, " B"]
) -> list[BlockOutput]:
    """Every block's outputs, in order, as sampling computes them (with attention scaling beyond the trained size)."""
    scaled = dataclasses.replace(config.sample, attention_scaling="on")
    network = make_network(config, make_process(config)).for_sampling(scaled)
    model = nnx.merge(make_graphdef(network), params)
    tokens = model.embed(x)
    B, h, w, D = tokens.shape
    condition, context = model.embed_condition(timesteps, labels), model.context((h, w), timesteps)
    _, (mixed, outputs) = model.run_blocks(tokens.reshape(B, h * w, D), condition, context, keep=True)
    return [BlockOutput(*layer) for layer in zip(mixed, outputs, strict=True)]


def noisy_images(
    config: Config, height: int, width: int, count: int, timestep: int, seed: int
) -> tuple[Float[Array, "B H W C"], Int[Array, " B"], Int[Array, " B"]]:
    """(x_t, timesteps, labels): the first real training images at a size, noised to one timestep.

    Raises ConfigError for a model of other data than digits and shapes, and for a size or timestep that cannot be.
    """
    if not 0 <= timestep < config.diffusion.num_timesteps:
        raise ConfigError(f"timestep={timestep} is not between 0 and {config.diffusion.num_timesteps - 1}")
    config.latent_shape(height, width)
    real = real_images(config.data.source, height, width, "train")
    images, labels = real.images[:count], real.labels[:count].astype(np.int32)
    x0 = np.repeat(to_float(images), config.data.image_channels, axis=-1)
    noise = np.random.default_rng(seed).standard_normal(x0.shape, np.float32)
    timesteps = jnp.full(len(labels), timestep)
    x = make_process(config).add_noise(jnp.asarray(x0), timesteps, jnp.asarray(noise))
    return x, timesteps, jnp.asarray(labels)
