"""Images to latents: the moments of a VAE's posterior for each image and its mirror image, in ArrayRecord files.

File k holds the images k n to (k + 1) n of the source, in order, n being the shard size, and takes its name once it
is whole. So the files that are there say what is done: a process writes those of its part that are not, and processes
need not talk to each other.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from ledit_jax.config import AutoencoderConfig, DataConfig, check_image_size
from ledit_jax.data import Source, make_source
from ledit_jax.data.batches import ImageRange
from ledit_jax.data.latents import MOMENTS, LatentMetadata, LatentWriter, shard_path, write_metadata
from ledit_jax.data.loader import read_ahead
from ledit_jax.data.source import BadRecords
from ledit_jax.errors import ConfigError
from ledit_jax.files import write_json
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.weights import load_vae, vae_description

logger = logging.getLogger(__name__)

PLAN_FILE = "plan.json"
Moments = tuple[jax.Array, ...]
"""In the order of MOMENTS, each [B, H, W, C]."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a folder of latents is to become; another plan than the one that started a folder is refused there."""

    metadata: LatentMetadata
    """`count` is the number of images, before any of them turns out to be unreadable."""
    shard_size: int

    @property
    def num_shards(self) -> int:
        """Files of the folder; all but the last have `shard_size` images."""
        return -(-self.metadata.count // self.shard_size)

    def ranges(self, shard: int, batch_size: int) -> list[tuple[int, int]]:
        """Batches of a file as (start, stop). None reaches into the next file, so that a batch holds the same
        images in whatever order, and after however many kills, files are written."""
        first, last = shard * self.shard_size, min((shard + 1) * self.shard_size, self.metadata.count)
        return [(start, min(start + batch_size, last)) for start in range(first, last, batch_size)]


@dataclasses.dataclass(frozen=True)
class Report:
    """What a call of `encode_latents` did, and what it found."""

    encoded: int
    """Images that this call encoded."""
    images_per_sec: float
    missing: int
    """Files that other processes have still to write."""
    metadata: LatentMetadata | None = None
    """Of the folder once it is finished."""
    bytes_per_image: float = 0.0

    def __str__(self) -> str:
        done = f"encoded {self.encoded:,} images at {self.images_per_sec:.1f} images/s"
        if not self.encoded:
            done = "nothing is left to do here"
        if self.metadata is None:
            return f"{done}; {self.missing} files are still to be written by other processes"
        skipped = f", {self.metadata.skipped} images could not be read" if self.metadata.skipped else ""
        return (
            f"{done}; all {self.metadata.count:,} records are there, {self.bytes_per_image:,.0f} bytes/image{skipped}"
        )


def encode_latents(
    data: DataConfig,
    vae: str,
    output: str | Path,
    *,
    scale: float,
    batch_size: int,
    shard_size: int,
    part: tuple[int, int] = (0, 1),
) -> Report:
    """Encodes the images of `data` that are not encoded yet; after a kill, the same call again goes on.

    data: where images come from, their size in pixels, worker processes, and the share of bad ones to put up with.
    vae: its checkpoint. scale: recorded for training; moments are stored as they are. batch_size: images at a time,
    over all devices of this process. shard_size: images of a file, and the most that a kill costs. part: (index,
    count) of this process among those that share the work. Raises ConfigError or CheckpointError for what cannot
    work, before anything is computed.
    """
    config, vae_id = vae_description(vae)
    check_image_size(data.image_height, data.image_width, config.downsample)
    if batch_size % jax.local_device_count():
        raise ConfigError(
            f"--batch_size={batch_size} is not a multiple of the {jax.local_device_count()} devices of this process"
        )
    source = make_source(dataclasses.replace(data, image_channels=config.image_channels), AutoencoderConfig())
    size = data.image_height, data.image_width, config.downsample, config.latent_channels
    metadata = LatentMetadata(
        vae, scale, *size, describe_source(data), source.num_classes, count=len(source), vae_id=vae_id
    )
    plan, output = Plan(metadata, shard_size), Path(output)
    settle_plan(output, plan)
    encoded, seconds = _write_missing(plan, source, data, output, batch_size, part)
    return _finish(plan, output, encoded, seconds)


def describe_source(data: DataConfig) -> str:
    """Name, split and place of the images, as metadata.json has them."""
    words = [data.source, data.name] + ([] if data.source == "image_folder" else [data.split]) + [data.path]
    return " ".join(word for word in words if word)


def settle_plan(output: Path, plan: Plan) -> None:
    """Writes plan.json into a new folder; raises ConfigError where another plan, or other latents, are there."""
    here, file = dataclasses.asdict(plan.metadata) | {"shard_size": plan.shard_size}, output / PLAN_FILE
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            if any(output.glob("*.array_record")):
                raise ConfigError(f"--output={output} holds latents without a {PLAN_FILE}: choose another folder")
            write_json(file, here)
        there = json.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"--output={output} cannot be written ({error.strerror}): choose another folder") from error
    except ValueError as error:
        raise ConfigError(f"{file} cannot be understood: remove the folder and encode anew") from error
    for name, value in here.items():
        if name != "vae" and there.get(name) != value:  # the fingerprint tells the VAE, wherever it lies
            raise ConfigError(
                f"--output={output} was begun with {name}={there.get(name)}, and this is {name}={value}: "
                "give the same as then, or another folder"
            )


def make_encoder(vae: str, batch_shape: tuple[int, int, int, int]) -> Callable[[np.ndarray], Moments]:
    """A compiled function from uint8 images [B, H, W, C] to their moments and those of their mirror images.

    The batch is split over the devices of this process, each of which has the whole autoencoder.
    """
    mesh = data_mesh(jax.local_devices())
    batch_sharding = NamedSharding(mesh, P("data"))
    graphdef, params = nnx.split(load_vae(vae), nnx.Param)
    params = jax.device_put(params, NamedSharding(mesh, P()))

    def encode(params, images) -> Moments:
        x = images.astype(jnp.float32) / 127.5 - 1
        model = nnx.merge(graphdef, params)
        # Latents are made once and used for good: three passes of bfloat16 where a TPU would do with one.
        with jax.default_matmul_precision("high"):
            return *model.encode(x), *model.encode(x[:, :, ::-1])

    abstract = jax.ShapeDtypeStruct(batch_shape, jnp.uint8, sharding=batch_sharding)
    compiled = jax.jit(encode, out_shardings=batch_sharding).lower(params, abstract).compile()
    return lambda images: compiled(params, jax.device_put(images, batch_sharding))


def _write_missing(
    plan: Plan, source: Source, data: DataConfig, output: Path, batch_size: int, part: tuple[int, int]
) -> tuple[int, float]:
    """Writes this part's files that are not there; returns images encoded and seconds, compilation not counted."""
    index, count = part
    mine = range(index, plan.num_shards, count)
    missing = [shard for shard in mine if not shard_path(output, shard, plan.num_shards).exists()]
    if not missing:
        return 0, 0.0
    if len(missing) < len(mine):
        logger.info(f"going on in {output}: {len(mine) - len(missing)} of {len(mine)} files are there")
    config, _ = vae_description(plan.metadata.vae)
    shape = (batch_size, data.image_height, data.image_width, config.image_channels)
    encode = make_encoder(plan.metadata.vae, shape)
    ranges = [bounds for shard in missing for bounds in plan.ranges(shard, batch_size)]
    batches = read_ahead(grain.MapDataset.source(ranges).map(ImageRange(source, *shape)), data.num_workers)
    total, start = sum(stop - first for first, stop in ranges), time.perf_counter()
    with contextlib.closing(batches), tqdm(total=total, unit="image", desc="encode", disable=None) as bar:
        encoded = _write_shards(plan, output, _encode_all(ranges, batches, encode), BadRecords(data.max_bad_share), bar)
    return encoded, time.perf_counter() - start


def _encode_all(ranges: list, batches: Iterator, encode: Callable) -> Iterator[tuple[range, dict[str, Any], Moments]]:
    """(places in the source, batch, moments) in order, a batch late: the device has the next one already."""
    previous = None
    for bounds, batch in zip(ranges, batches, strict=True):
        current = range(*bounds), batch, encode(batch["image"])
        if previous:
            yield previous
        previous = current
    if previous:
        yield previous


def _write_shards(plan: Plan, output: Path, encoded: Iterator, bad: BadRecords, bar: tqdm) -> int:
    """Writes a file after the other from encoded batches; returns how many records."""
    written, since = 0, time.perf_counter()
    for shard, group in itertools.groupby(encoded, key=lambda item: item[0].start // plan.shard_size):
        with LatentWriter(output, plan.metadata.shape, shard, plan.num_shards) as writer:
            for places, batch, moments in group:
                moments = jax.device_get(moments)
                for i in range(len(places)):
                    if i not in batch["bad"]:
                        record = {name: moment[i] for name, moment in zip(MOMENTS, moments, strict=True)}
                        writer.write(record | {"label": int(batch["label"][i])})
                written += len(places) - len(batch["bad"])
                bad.add(list(batch["bad"].values()), written)
                bar.update(len(places))
        if bar.disable:
            rate = written / (time.perf_counter() - since)
            logger.info(f"file {shard + 1} of {plan.num_shards} is whole, {rate:.1f} images/s")
    return written


def _finish(plan: Plan, output: Path, encoded: int, seconds: float) -> Report:
    """Writes metadata.json if all files are there."""
    paths = [shard_path(output, shard, plan.num_shards) for shard in range(plan.num_shards)]
    missing = sum(not path.exists() for path in paths)
    rate = encoded / seconds if encoded else 0.0
    if missing:
        return Report(encoded, rate, missing)
    metadata = write_metadata(output, plan.metadata, plan.num_shards)
    size = sum(path.stat().st_size for path in paths)
    return Report(encoded, rate, 0, metadata, size / max(metadata.count, 1))
