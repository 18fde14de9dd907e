"""What goes on inside a trained network: the output of each block, and of its attention before the projection."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from experiments.study.images import real_images
from ledit_jax.config import Config, attention_kinds
from ledit_jax.data.transforms import to_float
from ledit_jax.diffusion import create_diffusion
from ledit_jax.errors import ConfigError
from ledit_jax.models.functional import Params, make_graphdef
from ledit_jax.models.ledit import modulate
from ledit_jax.models.lookhere import layer_slopes
from ledit_jax.models.norm import layer_norm
from ledit_jax.ops.attention import attention_scale


@dataclass(frozen=True)
class BlockOutput:
    """One block. `mixed` is attention's weighted sum of values, heads side by side."""

    mixed: Float[Array, "B T D"]
    output: Float[Array, "B T D"]


def block_outputs(
    params: Params, config: Config, x: Float[Array, "B H W C"], timesteps: Int[Array, " B"], labels: Int[Array, " B"]
) -> list[BlockOutput]:
    """Every block's outputs, in order, as sampling computes them (with attention scaling beyond the trained size)."""
    model = nnx.merge(make_graphdef(config), params)
    tokens = model.embed(x)
    B, h, w, D = tokens.shape
    condition = model.embed_condition(timesteps, labels)
    scale = attention_scale(h * w, config.num_tokens())
    grid = model.token_grid(h, w, timesteps, scale, "plain")
    shared = model.shared_adaln(condition) if config.model.block == "fit" else None
    slopes = jnp.asarray(layer_slopes(config.model.depth)) if config.model.position == "lookhere" else None

    units = attention_kinds(config.model.block_order, config.model.depth)
    kinds = [kind for unit, repeats in units for kind in unit * repeats]
    block_def, stacked = nnx.split(model.blocks)
    z, outputs = tokens.reshape(B, h * w, D), []
    for index, kind in enumerate(kinds):
        block = nnx.merge(block_def, jax.tree.map(lambda p, i=index: p[i], stacked))
        place = (config.model.scan if kind == "ca" else "none", None if slopes is None else slopes[index])
        modulation = block.adaln(condition) + (0 if shared is None else shared)
        shift, scale, *_ = jnp.split(modulation, 6, axis=-1)
        normed = modulate(layer_norm(z, block.eps), shift, scale).astype(z.dtype)
        z = block(z, condition, grid, *place, shared)
        # With the identity for a projection, attention returns what it mixed.
        block.attn.proj.kernel[...], block.attn.proj.bias[...] = jnp.eye(D), jnp.zeros(D)
        outputs.append(BlockOutput(block.attn(normed, grid, *place), z))
    return outputs


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
    diffusion = create_diffusion(**dataclasses.asdict(config.diffusion))
    x = diffusion.q_sample(jnp.asarray(x0), timesteps, jnp.asarray(noise))
    return x, timesteps, jnp.asarray(labels)
