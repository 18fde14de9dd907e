"""From positions in a process's share of the records to finished batches: what the reading threads and workers do."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data.source import MIN_READ_TO_JUDGE, Source, UnreadableRecord
from ledit_jax.data.transforms import center_crop, random_crop, random_flip, to_array, to_float, to_image
from ledit_jax.errors import DataError

Record = dict[str, Any]
Condition = Callable[[Record, np.random.Generator], Any]
"""What conditions the network, from a record: a pytree of NumPy arrays (or scalars) without a batch axis.

It may draw, one caption of several for example, after the record's crop, flip and noise have been drawn.
"""


class ProcessShare:
    """Every `process_count`-th record of a source from `process_index` on, with unreadable ones passed over.

    All shares have the same length: the source's last records are dropped where they do not divide evenly. Behind
    them come those of the indices `extra`: what is left of an epoch of another number of shares.
    """

    def __init__(
        self, source: Source, process_index: int = 0, process_count: int = 1, extra: np.ndarray | tuple[()] = ()
    ):
        self._source, self._offset, self._stride = source, process_index, process_count
        self._length, self._extra = len(source) // process_count, extra

    def __len__(self) -> int:
        return self._length

    def read(self, position: int) -> tuple[Record, list[str]]:
        """The record at a position, and the messages about unreadable ones.

        The place of a record that cannot be read is taken by the next one of this share that can; in a folder that
        is nearly always of the same class.
        """
        bad: list[str] = []
        for step in range(min(self._length, MIN_READ_TO_JUDGE)):
            place = (position + step) % self._length
            index = self._offset + place * self._stride
            if step == 0 and position >= self._length:
                index = int(self._extra[position - self._length])
            try:
                return self._source[index], bad
            except UnreadableRecord as error:
                bad.append(str(error))
        raise DataError(f"{len(bad)} records in a row cannot be read, the last is {bad[-1]}: repair the data")


def stack_conditions(conditions: list[Any]) -> Any:
    """Pytrees of arrays as one, with a leading batch axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *conditions)


class ImageBatch:
    """Positions in a share of images to `{"x": float32 [B, H, W, C] in [-1, 1], "condition": pytree [B, ...], "bad"}`.

    Each image is cropped to its centre, or at random with a `min_crop_share` below 1, and, if `flip`, mirrored half of
    the time.
    """

    def __init__(self, share: ProcessShare, condition: Condition, config: DataConfig):
        self._share, self._condition = share, condition
        self._shape = config.image_height, config.image_width, config.image_channels
        self._min_crop_share, self._flip = config.min_crop_share, config.flip

    def __call__(self, positions: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        x = np.empty((len(positions), *self._shape), np.float32)
        conditions, bad = [], []
        for i, position in enumerate(positions):
            record, skipped = self._share.read(int(position))
            image = self._crop(record, rng)
            to_float(random_flip(image, rng) if self._flip else image, out=x[i])
            conditions.append(self._condition(record, rng))
            bad += skipped
        return {"x": x, "condition": stack_conditions(conditions), "bad": bad}

    def _crop(self, record: Record, rng: np.random.Generator) -> UInt8[np.ndarray, "H W C"]:
        if self._min_crop_share == 1:
            return crop_record(record, *self._shape)
        height, width, channels = self._shape
        image = to_image(checked_image(record))
        try:
            return to_array(random_crop(image, height, width, self._min_crop_share, rng), channels)
        except ValueError as error:
            raise DataError(f"an image cannot be cropped, since {error}: leave it out, or cut it") from error


def crop_record(record: Record, height: int, width: int, channels: int) -> UInt8[np.ndarray, "H W C"]:
    """The centre of a record's image at this size; what a source has cropped already stays as it is."""
    image = checked_image(record)
    if image.shape == (height, width, channels):
        return image
    return to_array(center_crop(to_image(image), height, width), channels)


def checked_image(record: Record) -> UInt8[np.ndarray, "H W C"]:
    """A record's image. Raises DataError where it has none, or one of another kind."""
    image = record.get("image") if isinstance(record, dict) else None
    is_array = isinstance(image, np.ndarray)
    if not is_array or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        found = f"{image.dtype} {list(image.shape)}" if is_array else type(image).__name__
        raise DataError(f"a record's image is {found}, and uint8 [height, width, 1 or 3] is needed: mend the source")
    return image


class ImageRange:
    """A range (start, stop) of a source's records to `{"image": uint8 [B, H, W, C], "label": int32 [B], "captions",
    "bad"}`.

    Images are cropped to their centre. B is `batch_size` whatever the range; where it is shorter, and at records that
    cannot be read, images are black. "captions" is a list of texts for each place, empty without any; "bad" is a dict
    from places in the batch to messages.
    """

    def __init__(self, source: Source, batch_size: int, height: int, width: int, channels: int):
        self._source, self._shape = source, (batch_size, height, width, channels)

    def __call__(self, bounds: tuple[int, int]) -> dict[str, Any]:
        images, labels = np.zeros(self._shape, np.uint8), np.zeros(self._shape[0], np.int32)
        captions: list[list[str]] = [[] for _ in labels]
        bad: dict[int, str] = {}
        for i, index in enumerate(range(*bounds)):
            try:
                record = self._source[index]
            except UnreadableRecord as error:
                bad[i] = str(error)
                continue
            images[i], labels[i] = crop_record(record, *self._shape[1:]), record["label"]
            captions[i] = record.get("captions", [])
        return {"image": images, "label": labels, "captions": captions, "bad": bad}


class LatentBatch:
    """Positions in a share of latents to `{"x": float32 [B, H, W, C], "condition": pytree [B, ...], "bad"}`.

    x = (mean + exp(logvar / 2) * noise - offsets) * factors: samples of the posterior, of the mirrored image's half of
    the time if `flip`, as the network has them (`AutoencoderConfig`).
    """

    def __init__(
        self,
        share: ProcessShare,
        condition: Condition,
        shape: tuple[int, int, int],
        autoencoder: AutoencoderConfig,
        flip: bool,
    ):
        self._share, self._condition = share, condition
        self._shape, self._flip = shape, flip
        self._offsets = np.asarray(autoencoder.offsets, np.float32) if autoencoder.latents_mean else None
        # One number for all is several times as fast as one for each channel.
        self._factors = np.asarray(autoencoder.factors if autoencoder.latents_std else autoencoder.scale, np.float32)

    def __call__(self, positions: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        noise = np.random.Generator(np.random.SFC64(rng.integers(2**63)))  # the fastest of NumPy's
        flips = rng.integers(2, size=len(positions)) if self._flip else np.zeros(len(positions), int)
        x = np.empty((len(positions), *self._shape), np.float32)
        conditions, bad = [], []
        # One latent at a time, so that all this stays in the cache.
        sample, drawn = np.empty(self._shape, np.float32), np.empty(self._shape, np.float32)
        for i, (position, flip) in enumerate(zip(positions, flips, strict=True)):
            record, skipped = self._share.read(int(position))
            suffix = "_flip" if flip else ""
            np.exp(np.multiply(record["logvar" + suffix], np.float32(0.5), out=sample), out=sample)
            sample *= noise.standard_normal(dtype=np.float32, out=drawn)
            sample += record["mean" + suffix]
            if self._offsets is not None:
                sample -= self._offsets
            np.multiply(sample, self._factors, out=x[i])
            conditions.append(self._condition(record, rng))
            bad += skipped
        return {"x": x, "condition": stack_conditions(conditions), "bad": bad}
