"""The encoding half of the autoencoder on the devices of one process: what `encode_latents` is given."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ledit_jax.models.autoencoders import Autoencoder, AutoencoderSizes
from ledit_jax.parallel.memory import check_fits, device_memory
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.parallel.sharding import batch_sharding

Moments = tuple[jax.Array, ...]
"""Mean and log-variance of images, then of their mirror images, each [B, H, W, C]."""


@dataclass(frozen=True)
class VAEEncoder:
    """An autoencoder that is known by its config and fingerprint, and loaded once there is something to encode."""

    name: str
    """A path for people to read."""
    config: AutoencoderSizes
    fingerprint: str
    load: Callable[[], Autoencoder]

    @property
    def image_channels(self) -> int:
        return self.config.image_channels

    @property
    def latent_channels(self) -> int:
        return self.config.latent_channels

    @property
    def downsample(self) -> int:
        return self.config.downsample

    @property
    def num_devices(self) -> int:
        return jax.local_device_count()

    def check_fits(self, batch_shape: tuple[int, int, int, int]) -> None:
        """Raises ConfigError for a batch that the devices of this process certainly cannot hold."""
        count, height, width, _ = batch_shape
        least = 2 * 4 * count * height * width * self.config.block_out_channels[0]  # what a convolution takes and gives
        what = f"batch_size={count} with height={height} and width={width}"
        check_fits(what, least, device_memory(jax.local_devices()), "use a smaller batch or smaller images")

    def compile(self, batch_shape: tuple[int, int, int, int]) -> Callable[[np.ndarray], Moments]:
        """A compiled function from uint8 images [B, H, W, C] to their moments and those of their mirror images.

        The batch is split over the devices of this process, each of which has the whole autoencoder. Raises ConfigError
        as `check_fits` does.
        """
        self.check_fits(batch_shape)
        mesh = data_mesh(jax.local_devices())
        split = batch_sharding(mesh)
        graphdef, params = nnx.split(self.load(), nnx.Param)
        params = jax.device_put(params, NamedSharding(mesh, P()))

        def encode(params, images) -> Moments:
            x = images.astype(jnp.float32) / 127.5 - 1
            model = nnx.merge(graphdef, params)
            # Latents are made once and used for good: three passes of bfloat16 where a TPU would do with one.
            with jax.default_matmul_precision("high"):
                return *model.encode(x), *model.encode(x[:, :, ::-1])

        abstract = jax.ShapeDtypeStruct(batch_shape, jnp.uint8, sharding=split)
        compiled = jax.jit(encode, out_shardings=split).lower(params, abstract).compile()
        return lambda images: compiled(params, jax.device_put(images, split))
