"""Images through the Inception network, over all local devices; in pieces that are kept, where they should be."""

import hashlib
import json
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

from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.images import Images
from ledit_jax.files import whole_file, write_json
from ledit_jax.models.inception import Inception
from ledit_jax.parallel.mesh import data_mesh
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
        padded = jax.device_put(padded, NamedSharding(self.mesh, P("data")))
        # Accelerators would multiply in bfloat16 or TF32 by default, and the reference figures are float32's.
        with jax.default_matmul_precision("highest"):
            pool, spatial = self._run(self._params, padded)
        return np.asarray(pool)[: len(images)], np.asarray(spatial)[: len(images)]

    def pieces(self, images: Images, folder: Path | None = None, progress: str | None = None) -> Iterator[Features]:
        """Features of a whole set, PIECE images at a time and in order.

        folder: where each piece is kept once it is done, and read from if it is there already. progress: the caption
        of a progress bar. Raises ConfigError for a folder that holds another set's features.
        """
        kept = _KeptPieces(folder, images, self.digest) if folder else None
        done = kept.count() if kept else 0
        with progress_bar(progress, images.count, "image", disable=progress is None) as bar:
            for index in range(done):
                features = kept.read(index)
                bar.update(len(features[0]))
                yield features
            for index, features in enumerate(self._computed(images, done, bar), start=done):
                if kept:
                    kept.write(index, features)
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


class _KeptPieces:
    """Pieces on disk, one file each, beside a note of the set and the network that they come from."""

    def __init__(self, folder: Path, images: Images, digest: str):
        self._folder, self._total = folder, -(-images.count // PIECE)
        key = images.fingerprint | {"inception": digest}
        note = folder / "set.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not note.exists():
                write_json(note, key)
            if json.loads(note.read_text()) != key:
                raise ConfigError(f"--features: {folder} holds features of other images or weights: choose another")
        except (OSError, json.JSONDecodeError) as error:
            raise ConfigError(f"--features: {folder} cannot be used ({error}): choose another place") from error

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:06d}.npz"

    def count(self) -> int:
        """Pieces from the first on that are there."""
        return next((i for i in range(self._total) if not self._path(i).exists()), self._total)

    def read(self, index: int) -> Features:
        with np.load(self._path(index)) as archive:
            return archive["pool"], archive["spatial"]

    def write(self, index: int, features: Features) -> None:
        pool, spatial = features
        with whole_file(self._path(index)) as file:
            np.savez(file, pool=pool, spatial=spatial)
