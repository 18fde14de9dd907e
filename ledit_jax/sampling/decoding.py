"""From what the network draws to bytes: through the autoencoder, for models of latents."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, UInt8

from ledit_jax.config import Config
from ledit_jax.errors import ConfigError
from ledit_jax.models.vae import AutoencoderKL
from ledit_jax.models.vae_parts import decode_in_parts
from ledit_jax.parallel.processes import gather, shard_arrays

PlacedVAE = tuple[Any, Any]
"""An autoencoder as `nnx.split` gives it, a copy of it on each device."""


def place_vae(vae: AutoencoderKL | None, config: Config, mesh: Mesh) -> PlacedVAE | None:
    """The autoencoder on the devices of a mesh; None for a model of pixels.

    Raises ConfigError for a model of latents without one, or with one of another shape of latents.
    """
    if vae is None and config.autoencoder.kind != "none":
        raise ConfigError(
            "this model makes latents, and decoding them needs a VAE checkpoint of ours: give vae, or name one in "
            "autoencoder.checkpoint"
        )
    if vae is None:
        return None
    if config.autoencoder.kind == "none":
        raise ConfigError("this model makes pixels, and no latents that a vae could decode: leave vae out")
    found = 2 ** (len(vae.config.block_out_channels) - 1), vae.config.latent_channels
    needed = config.downsample, config.in_channels
    if found != needed:
        raise ConfigError(
            f"the VAE downsamples by {found[0]} to {found[1]} channels, and this model's latents are downsampled by "
            f"{needed[0]} with {needed[1]} channels: give the VAE that it was trained with"
        )
    graphdef, state = nnx.split(vae)
    return graphdef, shard_arrays(state, NamedSharding(mesh, P()))


def decode(
    vae: PlacedVAE | None, config: Config, latents: Float[Array, "B H W C"]
) -> UInt8[np.ndarray, "B height width channels"]:
    """Samples to bytes, trunc(clamp(127.5 x + 128, 0, 255)) as DiT saves them; latents go through the VAE."""
    if vae is not None:
        precision = config.model.precision
        # The VAE's own modules know no precision, and decoding has no gradient that a context would not reach.
        with jax.default_matmul_precision(precision) if precision else contextlib.nullcontext():
            space = config.autoencoder
            latents = latents / jnp.asarray(space.factors, jnp.float32) + jnp.asarray(space.offsets, jnp.float32)
            latents = _decode_latents(*vae, latents)
    return gather(jnp.clip(127.5 * latents + 128.0, 0, 255).astype(jnp.uint8))


@functools.partial(jax.jit, static_argnums=0)
def _decode_latents(graphdef, state, latents):
    return decode_in_parts(nnx.merge(graphdef, state), latents)
