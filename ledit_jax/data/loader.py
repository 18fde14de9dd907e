"""Batches for one process: sharded, shuffled anew each epoch, augmented, read ahead by Grain, resumable exactly.

Batch k of a process is a pure function of the source, the seed and k, whatever the number of workers; so the state
of a loader is a position, and resuming is starting there.
"""

import grain
import numpy as np
from absl import flags

from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data.batches import ImageBatch, LatentBatch, ProcessShare
from ledit_jax.data.catalog import make_source
from ledit_jax.data.source import BadRecords
from ledit_jax.errors import ConfigError

_THREADS = 4
"""Batches made at a time, and kept ready, by each reading process. Grain's default of 500 counts batches here."""

# Records of an endless stream: Grain's own infinity overflows the length of a batched stream.
_FOREVER = 2**50


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
        stream: dict[str, int | str],
    ):
        self.num_classes = num_classes
        self._batches, self._num_workers, self._stream = batches, num_workers, stream
        self._bad, self._next_batch = BadRecords(max_bad_share), 0
        self._iterator: grain.DatasetIterator | None = None

    @property
    def bad_records(self) -> int:
        """How often a record could not be read, from the first batch on."""
        return self._bad.count

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if self._iterator is None:
            self._iterator = read_ahead(self._batches.slice(slice(self._next_batch, None)), self._num_workers)
        batch = next(self._iterator)
        self._next_batch += 1
        self._bad.add(batch.pop("bad"), self._next_batch * self._stream["batch_size"])
        batch["condition"] = batch.pop("label")
        return batch

    def get_state(self) -> dict[str, int | str]:
        """The position, ready for JSON, with what the stream depends on."""
        return self._stream | {"next_batch": self._next_batch, "bad_records": self._bad.count}

    def set_state(self, state: dict[str, int | str]) -> None:
        """Goes to the position of a `get_state`: what follows is bit for bit what followed then.

        The number of workers may differ. Raises ConfigError if the state is of another stream of batches.
        """
        for name, here in self._stream.items():
            saved = state.get(name)  # None where another kind of source was read
            if saved != here:
                raise ConfigError(
                    f"the data position was saved with {name}={saved}, and this run has {name}={here}: "
                    f"go back to {saved}, or start in a new folder from that checkpoint's weights"
                )
        self.close()
        self._next_batch, self._bad.count = state["next_batch"], state["bad_records"]

    def close(self) -> None:
        """Ends the reading threads and worker processes; the next batch starts them again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def read_ahead(batches: grain.MapDataset, num_workers: int) -> grain.DatasetIterator:
    """Iterates over a dataset in order while threads, or `num_workers` processes, make what comes next."""
    threads = 1 if num_workers else _THREADS
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
    if num_workers:
        if not flags.FLAGS.is_parsed():  # in a notebook or a test; Grain reads its own flags before it starts
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=2))
    return iter(dataset)


def make_loader(
    config: DataConfig,
    autoencoder: AutoencoderConfig,
    *,
    condition=None,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    source=None,
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
    source = source or make_source(config, autoencoder)
    shard = ProcessShare(source, process_index, process_count)
    if not 0 < batch_size <= len(shard):
        raise ConfigError(
            f"a batch of {batch_size} per process does not fit the {len(shard)} records that data.source="
            f"{config.source} gives each of {process_count} processes: use 1 to {len(shard)}"
        )
    if config.source == "latents":
        make_batch = LatentBatch(shard, source.metadata.shape, autoencoder.scale, config.flip)
    else:
        size = config.image_height, config.image_width, config.image_channels
        make_batch = ImageBatch(shard, *size, config.flip)
    # Hashed, because Grain shuffles epoch e by seed + e: neighbouring seeds would share their epochs. The process
    # enters so that no two draw the same noise.
    shuffle_seed, random_seed = np.random.SeedSequence((seed, process_index)).generate_state(2)
    # Positions go through Grain, and records are read a batch at a time: Grain's own work for an element costs more
    # than reading a latent.
    batches = (
        grain.MapDataset.range(len(shard))
        .shuffle(seed=int(shuffle_seed))
        .repeat(_FOREVER // len(shard))
        .batch(batch_size, batch_fn=np.asarray)
        .random_map(make_batch, seed=int(random_seed))
    )
    stream: dict[str, int | str] = {
        "records": len(shard),
        "batch_size": batch_size,
        "seed": seed,
        "process_index": process_index,
        "process_count": process_count,
    }
    if config.source == "latents":
        stream["vae"] = source.metadata.vae_id
    loader = Loader(batches, source.num_classes, config.num_workers, config.max_bad_share, stream)
    loader.source = source
    return loader
