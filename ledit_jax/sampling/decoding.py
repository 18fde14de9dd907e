"""From what the network draws to bytes: through the autoencoder, for models of latents."""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, UInt8

from ledit_jax.config import Config
from ledit_jax.errors import ConfigError
from ledit_jax.models.autoencoders import Autoencoder, AutoencoderSizes
from ledit_jax.models.vae_slices import choose_slices, decode_by_image
from ledit_jax.parallel.memory import device_memory
from ledit_jax.parallel.mesh import DATA
from ledit_jax.parallel.processes import gather, shard_arrays

DECODER_SHARE = 2 / 3
"""Of a device's memory that decoding may take: the network's weights lie there too."""


class PlacedVAE(NamedTuple):
    """An autoencoder as `nnx.split` gives it, a copy of it on each device, and its sizes."""

    graphdef: Any
    state: Any
    config: AutoencoderSizes


def check_vae(vae: AutoencoderSizes, config: Config) -> None:
    """Raises ConfigError for a model of pixels, or of another shape of latents."""
    if config.autoencoder.kind == "none":
        raise ConfigError("this model makes pixels, and no latents that a vae could decode: leave vae out")
    found, needed = (vae.downsample, vae.latent_channels), (config.downsample, config.in_channels)
    if found != needed:
        raise ConfigError(
            f"the VAE downsamples by {found[0]} to {found[1]} channels, and this model's latents are downsampled by "
            f"{needed[0]} with {needed[1]} channels: give the VAE that it was trained with"
        )


def place_vae(vae: Autoencoder | None, config: Config, mesh: Mesh) -> PlacedVAE | None:
    """The autoencoder on the devices of a mesh; None for a model of pixels.

    Raises ConfigError for a model of latents without one, and as `check_vae`.
    """
    if vae is None and config.autoencoder.kind != "none":
        raise ConfigError(
            "this model makes latents, and decoding them needs a VAE checkpoint of ours: give vae, or name one in "
            "autoencoder.checkpoint"
        )
    if vae is None:
        return None
    check_vae(vae.config, config)
    graphdef, state = nnx.split(vae)
    return PlacedVAE(graphdef, shard_arrays(state, NamedSharding(mesh, P())), vae.config)


def decode(
    vae: PlacedVAE | None, config: Config, latents: Float[Array, "B H W C"], gib: float | None = None
) -> UInt8[np.ndarray, "B height width channels"]:
    """Samples to bytes, trunc(clamp(127.5 x + 128, 0, 255)) as DiT saves them; latents go through the VAE.

    gib: of memory that decoding an image may take, by default `DECODER_SHARE` of a device's. An image that needs more
    is decoded in slices: the same image, up to the rounding of float32, in several times the time.
    """
    if vae is not None:
        precision, device = config.model.precision, jax.local_devices()[0]
        memory = int(gib * 2**30 if gib else DECODER_SHARE * device_memory([device]))
        sliced = choose_slices(vae.config, *latents.shape[1:3], memory, device.platform)
        # The VAE's own modules know no precision, and decoding has no gradient that a context would not reach.
        with jax.default_matmul_precision(precision) if precision else contextlib.nullcontext():
            space = config.autoencoder
            latents = latents / jnp.asarray(space.factors, jnp.float32) + jnp.asarray(space.offsets, jnp.float32)
            latents = decode_latents(vae.graphdef, vae.state, latents, sliced, _mesh_of(latents))
    return gather(jnp.clip(127.5 * latents + 128.0, 0, 255).astype(jnp.uint8))


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def decode_latents(
    graphdef, state, latents: Float[Array, "B H W C"], sliced: int, mesh: Mesh | None
) -> Float[Array, "B fH fW c"]:
    """The program: see `decode_by_image`. Each device of a mesh decodes its own images."""

    def run(state, latents):
        return decode_by_image(nnx.merge(graphdef, state), latents, sliced)

    if mesh is not None:  # left to itself XLA has every device decode all images
        run = jax.shard_map(run, mesh=mesh, in_specs=(P(), P(DATA)), out_specs=P(DATA), check_vma=False)
    return run(state, latents)


def _mesh_of(latents: jax.Array) -> Mesh | None:
    """That images are spread over, if they are."""
    mesh = getattr(latents.sharding, "mesh", None)
    is_spread = mesh is not None and mesh.size > 1 and len(latents) % mesh.size == 0
    return mesh if is_spread and mesh.axis_names == (DATA,) else None
