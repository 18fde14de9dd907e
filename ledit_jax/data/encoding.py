"""Images to latents: the moments of a VAE's posterior for each image and its mirror image, in ArrayRecord files, and
beside them, if asked for, the states that a text encoder makes of its captions.

File k holds the images k n to (k + 1) n of the source, in order, n being the shard size, and takes its name once it
is whole. So the files that are there say what is done: a process writes those of its part that are not, and processes
need not talk to each other.
"""

import contextlib
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
from tqdm import tqdm

from ledit_jax.config import AutoencoderConfig, DataConfig, check_image_size
from ledit_jax.data.batches import ImageRange
from ledit_jax.data.caption_states import CaptionStates, check_captions, mean_captions
from ledit_jax.data.catalog import make_source
from ledit_jax.data.encoding_plan import PLAN_FILE, Plan, Report, describe_source, expected_size
from ledit_jax.data.latent_metadata import EMPTY_CAPTION_FILE, LatentMetadata, write_empty_caption
from ledit_jax.data.latent_records import MOMENTS
from ledit_jax.data.latents import LatentWriter, shard_path, write_metadata
from ledit_jax.data.portable import Portable
from ledit_jax.data.read_ahead import ReadAhead
from ledit_jax.data.source import BadRecords, LabelledSource
from ledit_jax.errors import ConfigError
from ledit_jax.files import PieceFolder, Place, as_place, check_place
from ledit_jax.files.bucket import BUCKETS, size_of
from ledit_jax.progress import progress_bar

logger = logging.getLogger(__name__)

Encode = Callable[[np.ndarray], Sequence[Any]]
"""From uint8 images [B, H, W, C] to arrays [B, H, W, C] in the order of MOMENTS, which may still be on their way."""


@runtime_checkable
class Encoder(Protocol):
    """An autoencoder that nothing is asked of but its sizes and name until there is something to encode.

    `ledit_jax.models.vae_encoder.VAEEncoder` is one.
    """

    name: str
    """Which autoencoder it is: a path for people to read."""
    fingerprint: str
    """Of its weights."""
    image_channels: int
    latent_channels: int
    downsample: int
    num_devices: int
    """What batches have to be multiples of."""

    def check_fits(self, batch_shape: tuple[int, int, int, int]) -> None:
        """Raises ConfigError for batches that memory certainly cannot hold."""

    def compile(self, batch_shape: tuple[int, int, int, int]) -> Encode:
        """The encoder of batches of this shape."""


def encode_latents(
    data: DataConfig,
    encoder: Encoder,
    output: str | Place,
    *,
    scale: float,
    batch_size: int,
    shard_size: int,
    part: tuple[int, int] = (0, 1),
    captions: CaptionStates | None = None,
) -> Report:
    """Encodes the images of `data` that are not encoded yet; after a kill, the same call again goes on.

    data: where images come from, their size in pixels, worker processes, and the share of bad ones to put up with.
    scale: recorded for training; moments are stored as they are. batch_size: images at a time, over all devices of
    this process. shard_size: images of a file, and the most that a kill costs. part: (index, count) of this process
    among those that share the work. captions: what encodes the captions of the images too, all of each. Raises
    ConfigError, DataError or OutputError for what cannot work, before anything is computed; the folder of another plan
    is an OutputError.
    """
    check_image_size(data.image_height, data.image_width, encoder.downsample)
    if batch_size % encoder.num_devices:
        raise ConfigError(
            f"batch_size={batch_size} is not a multiple of the {encoder.num_devices} devices of this process"
        )
    _check_numbers(data, scale, shard_size)
    check_place(output, BUCKETS)
    shape = batch_size, data.image_height, data.image_width, encoder.image_channels
    encoder.check_fits(shape)
    source = make_source(dataclasses.replace(data, image_channels=encoder.image_channels), AutoencoderConfig())
    check_captions(source, data.source, captions)
    metadata = LatentMetadata(
        vae=encoder.name,
        scale=scale,
        height=data.image_height,
        width=data.image_width,
        downsample=encoder.downsample,
        latent_channels=encoder.latent_channels,
        source=describe_source(data),
        num_classes=source.num_classes,
        count=len(source),
        vae_id=encoder.fingerprint,
        **(captions.metadata if captions else {}),
    )
    plan, output = Plan(metadata, shard_size), as_place(output)
    largest = -(-min(shard_size, len(source)) // encoder.num_devices) * encoder.num_devices
    shape = min(batch_size, largest), *shape[1:]  # no batch reaches into the next file
    settings = metadata.to_dict() | {"shard_size": shard_size}
    # Fingerprints tell the encoders, wherever they lie.
    pieces = PieceFolder.open(output, PLAN_FILE, settings, free=("vae", "text"), pieces="*.array_record")
    if captions and not (output / EMPTY_CAPTION_FILE).exists():
        write_empty_caption(output, captions.encode_empty())
    encoded, seconds = _write_missing(plan, source, data, encoder, pieces, shape, part, captions)
    pieces.check_there()
    return _finish(plan, pieces, encoded, seconds)


def _check_numbers(data: DataConfig, scale: float, shard_size: int) -> None:
    if not 0 < scale <= 1e9:
        raise ConfigError(f"scale={scale} is not a number greater than 0: the autoencoder's authors say it")
    if not 0 <= data.max_bad_share <= 1:
        raise ConfigError(f"data.max_bad_share={data.max_bad_share} is not between 0 and 1")
    if shard_size >= 2**31:
        raise ConfigError(f"shard_size={shard_size} is too large: use less than 2^31")


def _write_missing(
    plan: Plan,
    source: LabelledSource,
    data: DataConfig,
    encoder: Encoder,
    pieces: PieceFolder,
    shape: tuple[int, int, int, int],
    part: tuple[int, int],
    captions: CaptionStates | None,
) -> tuple[int, float]:
    """Writes this part's files that are not there; returns images encoded and seconds, compilation not counted."""
    (index, count), output = part, pieces.folder
    mine = range(index, plan.num_shards, count)
    names = {shard: shard_path(output, shard, plan.num_shards).name for shard in mine}
    left = set(pieces.missing(names.values()))
    missing = [shard for shard in mine if names[shard] in left]
    if not missing:
        return 0, 0.0
    if len(missing) < len(mine):
        logger.info(f"going on in {output}: {len(mine) - len(missing)} of {len(mine)} files are there")
    logger.info(expected_size(plan.metadata, mean_captions(source) if captions else 0.0, output))
    encode = encoder.compile(shape)
    ranges = [bounds for shard in missing for bounds in plan.ranges(shard, shape[0])]
    read = Portable(ImageRange(source, *shape))
    batches = ReadAhead(grain.MapDataset.source(ranges).map(read), data.num_workers)
    total, start = sum(stop - first for first, stop in ranges), time.perf_counter()
    with contextlib.closing(batches), progress_bar("encode", total, "image") as bar:
        encoded = _encode_all(ranges, batches, encode)
        encoded = _write_shards(plan, pieces, encoded, BadRecords(data.max_bad_share), bar, captions)
    return encoded, time.perf_counter() - start


def _encode_all(
    ranges: list[tuple[int, int]], batches: Iterator, encode: Encode
) -> Iterator[tuple[range, dict[str, Any], Sequence[Any]]]:
    """(places in the source, batch, moments) in order, a batch late: the device has the next one already."""
    previous = None
    for bounds, batch in zip(ranges, batches, strict=True):
        current = range(*bounds), batch, encode(batch["image"])
        if previous:
            yield previous
        previous = current
    if previous:
        yield previous


def _write_shards(
    plan: Plan, pieces: PieceFolder, encoded: Iterator, bad: BadRecords, bar: tqdm, captions: CaptionStates | None
) -> int:
    """Writes a file after the other from encoded batches; returns how many records."""
    written = 0
    for shard, group in itertools.groupby(encoded, key=lambda item: item[0].start // plan.shard_size):
        place = pieces.folder, plan.metadata.shape, shard, plan.num_shards
        with pieces.writing(), LatentWriter(*place) as writer:
            for places, batch, moments in group:
                moments = [np.asarray(moment) for moment in moments]
                good = [i for i in range(len(places)) if i not in batch["bad"]]
                texts = [batch["captions"][i] for i in good]
                states = captions.encode(texts) if captions else [None] * len(good)
                for i, text, state in zip(good, texts, states, strict=True):
                    record = {name: moment[i] for name, moment in zip(MOMENTS, moments, strict=True)}
                    record |= {"label": int(batch["label"][i])}
                    writer.write(record | ({"captions": text, "caption_states": state} if captions else {}))
                written += len(good)
                bad.add(list(batch["bad"].values()), written)
                bar.update(len(places))
    return written


def _finish(plan: Plan, pieces: PieceFolder, encoded: int, seconds: float) -> Report:
    """Writes metadata.json if all files are there."""
    output = pieces.folder
    paths = [shard_path(output, shard, plan.num_shards) for shard in range(plan.num_shards)]
    missing = len(pieces.missing(path.name for path in paths))
    rate = encoded / seconds if encoded else 0.0
    if missing:
        return Report(encoded, rate, missing)
    metadata = write_metadata(output, plan.metadata, plan.num_shards)
    size = sum(size_of(path) for path in paths)
    return Report(encoded, rate, 0, metadata, size / max(metadata.count, 1))
