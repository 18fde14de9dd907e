"""Images through the Inception network, over all local devices; in pieces that are kept, where they should be."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, UInt8
from tqdm import tqdm

from ledit_jax.errors import DataError
from ledit_jax.evaluation.images import Images
from ledit_jax.files import PieceFolder
from ledit_jax.files.readers import Header, check_array, read_npz
from ledit_jax.models.inception import NUM_FEATURES, NUM_SPATIAL, Inception
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.parallel.sharding import batch_sharding
from ledit_jax.progress import progress_bar

PIECE = 1000
"""Images whose features are handed on, and kept, together."""

Features = tuple[Float[np.ndarray, "B 2048"], Float[np.ndarray, "B 2023"]]
"""pool_3, and the first channels of mixed_6/conv."""


class FeatureExtractor:
    """Runs the network on batches, split over the local devices, in float32 throughout."""

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
        self._run = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x.astype(jnp.float32)))

    def __call__(self, images: UInt8[np.ndarray, "B H W 3"]) -> Features:
        """Features of a batch of at most `self.batch_size`; it is filled up, so that one program serves all."""
        padded = np.resize(images, (self.batch_size, *images.shape[1:]))
        padded = jax.device_put(padded, batch_sharding(self.mesh))
        # Accelerators would multiply in bfloat16 or TF32 by default, and the reference figures are float32's.
        with jax.default_matmul_precision("highest"):
            pool, spatial = self._run(self._params, padded)
        return np.asarray(pool)[: len(images)], np.asarray(spatial)[: len(images)]

    def pieces(self, images: Images, folder: Path | None = None, progress: str | None = None) -> Iterator[Features]:
        """Features of a whole set, PIECE images at a time and in order.

        folder: where each piece is kept once it is done, and read from if it is there already. progress: the caption
        of a progress bar. Raises OutputError for a folder that holds another set's features.
        """
        names = [f"{index:06d}.npz" for index in range(-(-images.count // PIECE))]
        kept, done = None, 0
        if folder:
            kept = PieceFolder.open(folder, "set.json", images.fingerprint | {"inception": self.digest})
            done = names.index(missing[0]) if (missing := kept.missing(names)) else len(names)
        with progress_bar(progress, images.count, "image", disable=progress is None) as bar:
            for name in names[:done]:
                features = kept.read(name, _load_features)
                bar.update(len(features[0]))
                yield features
            for name, features in zip(names[done:], self._computed(images, done, bar), strict=True):
                if kept:
                    with kept.write(name) as file:
                        np.savez(file, pool=features[0], spatial=features[1])
                yield features

    def _computed(self, images: Images, first_piece: int, bar: tqdm) -> Iterator[Features]:
        batches = images.batches(self.batch_size, first_piece * PIECE)
        waiting: list[Features] = []
        left = images.count - first_piece * PIECE
        for batch in batches:
            waiting.append(self(batch))
            bar.update(len(batch))
            left -= len(batch)
            held = sum(len(pool) for pool, _ in waiting)
            if held < PIECE and left:
                continue
            pool, spatial = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
            whole = held if not left else held // PIECE * PIECE
            for start in range(0, whole, PIECE):
                stop = min(start + PIECE, whole)
                yield pool[start:stop], spatial[start:stop]
            waiting = [(pool[whole:], spatial[whole:])]


def _load_features(path: Path) -> Features:
    shapes = {"pool": (None, NUM_FEATURES), "spatial": (None, NUM_SPATIAL)}

    def wanted(name: str, header: Header) -> bool:
        check_array(path, name, header, shapes.get(name, ()), "f")
        return name in shapes

    arrays = read_npz(path, wanted)
    if arrays.keys() != shapes.keys() or len({len(array) for array in arrays.values()}) > 1:
        raise DataError(f"{path} holds other arrays than pool and spatial of the same images: remove it")
    return arrays["pool"], arrays["spatial"]
