"""CLIP score (Hessel et al., arXiv 2104.08718): how well each image fits its caption.

It is 100 max(cos, 0) of CLIP's vectors of image and caption, and the mean over the pairs: without the factor of 2.5 of
that paper and without a text in front of the caption, as torchmetrics and tables of text-to-image models have it.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int, UInt8
from PIL import Image

from ledit_jax.errors import DataError
from ledit_jax.evaluation.images import Images
from ledit_jax.evaluation.pieces import Arrays, Extractor
from ledit_jax.models.clip_vision import CLIP
from ledit_jax.models.text_encoder import warn_of_cuts
from ledit_jax.models.tokenizer import CLIPTokenizer
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.parallel.sharding import batch_sharding

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
"""Of OpenAI's training images, 0 to 1."""


class ClipScorer:
    """Scores pairs of images and prompts, over all local devices, in float32 throughout."""

    def __init__(self, clip: CLIP, tokenizer: CLIPTokenizer, digest: str, batch_size: int = 16):
        """digest: of weights and tokenizer. batch_size: images, and prompts, at a time on each device."""
        self.digest, self._tokenizer = digest, tokenizer
        mesh = data_mesh(jax.local_devices())
        graphdef, params = nnx.split(clip, nnx.Param)
        params = jax.device_put(params, NamedSharding(mesh, P()))
        width, size = clip.config.projection, clip.config.vision.image_size

        def of_images(params, images):
            return nnx.merge(graphdef, params).embed_images(images)

        def of_tokens(params, tokens):
            return nnx.merge(graphdef, params).embed_texts(tokens, tokenizer.end)

        shared = {"params": params, "mesh": mesh, "digest": digest, "batch_size": batch_size, "width": width}
        self._images = _Embedder(of_images, unit="image", prepare=lambda images: prepare_images(images, size), **shared)
        self._prompts = _Embedder(of_tokens, unit="prompt", prepare=lambda tokens: tokens, **shared)

    def __call__(
        self, images: Images, prompts: Sequence[str], folder: Path | None = None, progress: str | None = None
    ) -> Float[np.ndarray, " N"]:
        """The score of each pair, 0 to 100.

        folder: where the vectors of images and prompts are kept, to go on after a kill. progress: the caption of the
        bars. Raises DataError unless there is one prompt for each image, and OutputError as `Extractor.pieces`.
        """
        if len(prompts) != images.count:
            raise DataError(f"{images.name} holds {images.count} images, and {len(prompts)} prompts are given for them")
        tokens, cut = self._tokenizer(prompts)
        warn_of_cuts(prompts, cut, self._tokenizer.length)
        kept = (folder / "prompts", folder / "images") if folder else (None, None)
        texts = [text for (text,) in self._prompts.pieces(_Tokens(tokens), kept[0], progress)]
        pictures = self._images.pieces(images, kept[1], progress)
        cosines = [(text * picture).sum(axis=1) for text, (picture,) in zip(texts, pictures, strict=True)]
        return 100 * np.maximum(np.concatenate(cosines), 0)


def prepare_images(images: UInt8[np.ndarray, "B H W 3"], size: int) -> Float[np.ndarray, "B size size 3"]:
    """As CLIP sees images: the short side resized to `size` by PIL's bicubic filter, the middle, OpenAI's mean and
    spread; what transformers' CLIPImageProcessor does."""
    with ThreadPoolExecutor() as pool:
        cropped = list(pool.map(lambda image: _crop(image, size), images))
    return (np.stack(cropped).astype(np.float32) / 255 - _MEAN) / _STD


def _crop(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    height, width = (int(size * side / min(image.shape[:2])) for side in image.shape[:2])
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - size) // 2, (width - size) // 2
    return resized[top : top + size, left : left + size]


class _Tokens:
    """The ids of prompts, as `Items`."""

    def __init__(self, tokens: Int[np.ndarray, "N S"]):
        self.tokens, self.count = tokens, len(tokens)

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"count": self.count, "prompts": hashlib.sha256(self.tokens.tobytes()).hexdigest()[:16]}

    def batches(self, batch_size: int, start: int = 0) -> Iterator[Int[np.ndarray, "B S"]]:
        for first in range(start, self.count, batch_size):
            yield self.tokens[first : first + batch_size]


class _Embedder(Extractor):
    """One of the towers with its projection: vectors of length 1."""

    network = "clip"

    def __init__(
        self,
        run: Callable[[Any, jax.Array], jax.Array],
        *,
        unit: str,
        prepare: Callable[[np.ndarray], np.ndarray],
        params: Any,
        mesh: Mesh,
        digest: str,
        batch_size: int,
        width: int,
    ):
        self.unit, self.digest, self.widths = unit, digest, {"embedding": width}
        self.batch_size = batch_size * mesh.size
        self._mesh, self._params, self._prepare, self._run = mesh, params, prepare, jax.jit(run)

    def __call__(self, batch: np.ndarray) -> Arrays:
        """It is filled up, so that one program serves all."""
        ready = self._prepare(batch)
        padded = np.resize(ready, (self.batch_size, *ready.shape[1:]))
        with jax.default_matmul_precision("highest"):  # as in features.py
            embedding = self._run(self._params, jax.device_put(padded, batch_sharding(self._mesh)))
        return (np.asarray(embedding)[: len(batch)],)
