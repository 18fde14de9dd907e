"""Images through the Inception network, over all local devices."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, UInt8

from ledit_jax.evaluation.pieces import Extractor
from ledit_jax.models.inception import NUM_FEATURES, NUM_SPATIAL, Inception, resize
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.parallel.sharding import batch_sharding

Features = tuple[Float[np.ndarray, "B 2048"], Float[np.ndarray, "B 2023"]]
"""pool_3, and the first channels of mixed_6/conv."""


class FeatureExtractor(Extractor):
    """Runs the network on batches, split over the local devices, in float32 throughout."""

    network, unit = "inception", "image"
    widths = {"pool": NUM_FEATURES, "spatial": NUM_SPATIAL}  # noqa: RUF012 - read alone

    def __init__(self, network: Inception, batch_size: int = 64):
        """batch_size: images at a time on each device."""
        self.mesh = data_mesh(jax.local_devices())
        self.batch_size = batch_size * self.mesh.size
        graphdef, params = nnx.split(network, nnx.Param)
        self.class_weights = np.asarray(network.fc.kernel[...])
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(params):
            digest.update(np.asarray(leaf).tobytes())
        self.digest = digest.hexdigest()[:16]
        self._params = jax.device_put(params, NamedSharding(self.mesh, P()))
        # A program of its own for each size of images; that of the network, which takes long to compile, serves all.
        self._resize = jax.jit(lambda x: resize(x.astype(jnp.float32)))
        self._run = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))

    def __call__(self, images: UInt8[np.ndarray, "B H W 3"]) -> Features:
        """Features of a batch of at most `self.batch_size`; it is filled up, so that one program serves all."""
        padded = np.resize(images, (self.batch_size, *images.shape[1:]))
        padded = jax.device_put(padded, batch_sharding(self.mesh))
        # Accelerators would multiply in bfloat16 or TF32 by default, and the reference figures are float32's.
        with jax.default_matmul_precision("highest"):
            pool, spatial = self._run(self._params, self._resize(padded))
        return np.asarray(pool)[: len(images)], np.asarray(spatial)[: len(images)]
