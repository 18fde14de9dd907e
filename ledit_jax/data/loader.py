"""Batches for one process: sharded, shuffled anew each epoch, augmented, read ahead by Grain, resumable exactly.

Batch k of a process is a pure function of the source, the seed and k, whatever the number of workers; so the state
of a loader is a position, and resuming is starting there.
"""

import logging
from typing import Any

import grain
import numpy as np
from absl import flags

from ledit_jax.config import AutoencoderConfig, ConfigError, DataConfig
from ledit_jax.data.records import Source, UnreadableRecord
from ledit_jax.data.sources import make_source
from ledit_jax.data.transforms import center_crop, random_flip, to_array, to_float, to_picture

_THREADS = 4
"""Batches made at a time, and kept ready, by each reading process. Grain's default of 500 counts batches here."""
_MIN_READ_TO_JUDGE = 100
"""Reads before the share of unreadable records is judged; also the most to fail in a row."""
_LOG = logging.getLogger(__name__)

# Records of an endless stream: Grain's own infinity overflows the length of a batched stream.
_FOREVER = 2**50


class Shard:
    """Every `process_count`-th record of a source from `process_index` on, with unreadable ones passed over.

    All shards have the same length: the source's last records are dropped where they do not divide evenly. The
    place of a record that cannot be read is taken by the next one of this shard that can; in a folder that is
    nearly always of the same class. Records gain "bad", the messages about those passed over.
    """

    def __init__(self, source: Source, process_index: int = 0, process_count: int = 1):
        self._source, self._offset, self._stride = source, process_index, process_count
        self._length = len(source) // process_count

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        bad: list[str] = []
        for step in range(min(self._length, _MIN_READ_TO_JUDGE)):
            place = (index + step) % self._length
            try:
                return self._source[self._offset + place * self._stride] | {"bad": bad}
            except UnreadableRecord as error:
                bad.append(str(error))
        raise ConfigError(f"{len(bad)} records in a row cannot be read, the last is {bad[-1]}: mend the data")


class PixelTransform:
    """Picture record to `{"x": float32 [H, W, C] in [-1, 1], "label", "bad"}`: centre crop and, if `flip`, mirror."""

    def __init__(self, height: int, width: int, channels: int, flip: bool):
        self._height, self._width, self._channels, self._flip = height, width, channels, flip

    def __call__(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        image = record["image"]
        if image.shape != (self._height, self._width, self._channels):  # pictures drawn at the right size need nothing
            image = to_array(center_crop(to_picture(image), self._height, self._width), self._channels)
        if self._flip:
            image = random_flip(image, rng)
        return {"x": to_float(image), "label": record["label"], "bad": record["bad"]}


class LatentTransform:
    """Latent record to `{"x": float32 [H, W, C], "label", "bad"}`: a sample of the posterior, times `scale`.

    x = (mean + exp(logvar / 2) * noise) * scale, of the mirrored picture's moments half of the time if `flip`.
    """

    def __init__(self, scale: float, flip: bool):
        self._scale, self._flip = np.float32(scale), flip

    def __call__(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        suffix = "_flip" if self._flip and rng.integers(2) else ""
        mean, logvar = record["mean" + suffix], record["logvar" + suffix]
        noise = rng.standard_normal(mean.shape, np.float32)
        x = (mean + np.exp(np.float32(0.5) * logvar) * noise) * self._scale
        return {"x": x, "label": record["label"], "bad": record["bad"]}


class Loader:
    """Endless iterator of `{"x": float32 [B, H, W, C], "label": int32 [B]}`, see `make_loader`.

    Reading ahead starts with the first batch. `next` raises ConfigError, once 100 records have been read, when
    more than `max_bad_share` of them could not be; every one of those is logged as a warning, once.
    """

    def __init__(
        self,
        batches: grain.MapDataset,
        num_classes: int,
        num_workers: int,
        max_bad_share: float,
        stream: dict[str, int],
    ):
        self.num_classes = num_classes
        self._batches, self._num_workers, self._max_bad_share = batches, num_workers, max_bad_share
        self._stream = stream
        self._next_batch = self._bad_records = 0
        self._logged: set[str] = set()
        self._iterator: grain.DatasetIterator | None = None

    @property
    def bad_records(self) -> int:
        """How often a record could not be read, from the first batch on."""
        return self._bad_records

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if self._iterator is None:
            self._iterator = self._read_from(self._next_batch)
        batch = next(self._iterator)
        self._next_batch += 1
        self._count_bad(batch.pop("bad"))
        return batch

    def get_state(self) -> dict[str, int]:
        """The position, ready for JSON, with what the stream depends on."""
        return self._stream | {"next_batch": self._next_batch, "bad_records": self._bad_records}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to the position of a `get_state`: what follows is bit for bit what followed then.

        The number of workers may differ. Raises ConfigError if the state is of another stream of batches.
        """
        for name, here in self._stream.items():
            if state[name] != here:
                raise ConfigError(
                    f"the data position was saved with {name}={state[name]}, and this run has {name}={here}: "
                    f"go back to {state[name]}, or start in a new folder from that checkpoint's weights"
                )
        self.close()
        self._next_batch, self._bad_records = state["next_batch"], state["bad_records"]

    def close(self) -> None:
        """Ends the reading threads and worker processes; the next batch starts them again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _read_from(self, batch: int) -> grain.DatasetIterator:
        threads = 1 if self._num_workers else _THREADS
        dataset = self._batches.slice(slice(batch, None)).to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        )
        if self._num_workers:
            if not flags.FLAGS.is_parsed():  # in a notebook or a test; Grain reads its own flags before it starts
                flags.FLAGS.mark_as_parsed()
            dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(self._num_workers, per_worker_buffer_size=2))
        return iter(dataset)

    def _count_bad(self, bad: list[str]) -> None:
        for message in bad:
            if message not in self._logged:
                self._logged.add(message)
                _LOG.warning("skipped a record that cannot be read: %s", message)
        self._bad_records += len(bad)
        read = self._next_batch * self._stream["batch_size"] + self._bad_records
        if bad and read >= _MIN_READ_TO_JUDGE and self._bad_records > self._max_bad_share * read:
            raise ConfigError(
                f"data.max_bad_share={self._max_bad_share} is exceeded: {self._bad_records} of {read} records could "
                f"not be read, the last is {bad[-1]}: mend the data or raise the share"
            )


def make_loader(
    config: DataConfig,
    autoencoder: AutoencoderConfig,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Loader:
    """Loader of process `process_index` of `process_count`, in batches of `batch_size` for this process.

    x is pixels in [-1, 1], or for data.source=latents a sample of the posterior already times autoencoder.scale.
    The shards of the processes are disjoint. Every epoch has each record of the shard once, in another order and
    with other flips and noise; batches run on over the end of an epoch. With `num_workers`, so many processes
    make whole batches in turn; the caller's main module must then be importable (`if __name__ == "__main__"`).
    Raises ConfigError for what cannot work, before anything is read.
    """
    if config.num_workers < 0:
        raise ConfigError(f"data.num_workers={config.num_workers} must be 0 (read in this process) or more")
    if not 0 <= config.max_bad_share <= 1:
        raise ConfigError(f"data.max_bad_share={config.max_bad_share} is not between 0 and 1")
    if seed < 0:
        raise ConfigError(f"train.seed={seed} must be 0 or more")
    source = make_source(config, autoencoder)
    shard = Shard(source, process_index, process_count)
    if not 0 < batch_size <= len(shard):
        raise ConfigError(
            f"a batch of {batch_size} per process does not fit the {len(shard)} records that data.source="
            f"{config.source} gives each of {process_count} processes: use 1 to {len(shard)}"
        )
    if config.source == "latents":
        transform = LatentTransform(autoencoder.scale, config.flip)
    else:
        transform = PixelTransform(config.image_height, config.image_width, config.image_channels, config.flip)
    # Hashed, because Grain shuffles epoch e by seed + e: neighbouring seeds would share their epochs. The process
    # enters so that no two draw the same noise.
    shuffle_seed, random_seed = np.random.SeedSequence((seed, process_index)).generate_state(2)
    batches = (
        grain.MapDataset.source(shard)
        .shuffle(seed=int(shuffle_seed))
        .repeat(_FOREVER // len(shard))
        .random_map(transform, seed=int(random_seed))
        .batch(batch_size, batch_fn=_stack)
    )
    stream = {
        "records": len(shard),
        "batch_size": batch_size,
        "seed": seed,
        "process_index": process_index,
        "process_count": process_count,
    }
    return Loader(batches, source.num_classes, config.num_workers, config.max_bad_share, stream)


def _stack(records: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "x": np.stack([record["x"] for record in records]),
        "label": np.array([record["label"] for record in records], np.int32),
        "bad": [message for record in records for message in record["bad"]],
    }
