"""Batches for one process: shared out, shuffled anew each epoch, augmented, read ahead by Grain, resumable exactly.

Batch k of a process is a pure function of the source, the seed and k, whatever the number of workers; so the state
of a loader is a position, and resuming is starting there.
"""

import atexit
import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data.batches import Condition, ImageBatch, LatentBatch, ProcessShare
from ledit_jax.data.catalog import make_source
from ledit_jax.data.latents import Latents
from ledit_jax.data.moves import Leg, Shuffles, shuffled
from ledit_jax.data.portable import Portable
from ledit_jax.data.read_ahead import ReadAhead
from ledit_jax.data.source import BadRecords, Source
from ledit_jax.errors import ConfigError, DataError

_LOG = logging.getLogger(__name__)
_LATER = ("height", "width", "data")
"""What older states do not have."""
_OF_SHARES = ("records", "batch_size", "process_index", "process_count")
"""What differs between the numbers of processes of one run."""


class Loader:
    """Endless iterator of `{"x": float32 [B, H, W, C], "condition": pytree [B, ...]}`, see `make_loader`.

    Reading ahead starts with the first batch. `next` raises DataError, once 100 records have been read, when more
    than `max_bad_share` of them could not be; every one of those is logged as a warning, once.
    """

    def __init__(
        self,
        source: Source,
        make_batches: Callable[[Sequence[Leg]], grain.MapDataset],
        num_workers: int,
        max_bad_share: float,
        stream: dict[str, Any],
    ):
        """make_batches: the stream after such legs of the run."""
        self.source = source
        self._make_batches, self._num_workers, self._stream = make_batches, num_workers, stream
        self._legs: list[Leg] = []
        self._bad, self._next_batch = BadRecords(max_bad_share), 0
        self._iterator: ReadAhead | None = None

    @property
    def bad_records(self) -> int:
        """How often a record could not be read, from the first batch on."""
        return self._bad.count

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> dict[str, Any]:
        batch = next(self._begun())
        self._next_batch += 1
        self._bad.add(batch.pop("bad"), self._next_batch * self._stream["batch_size"])
        return batch

    def ready(self, timeout: float) -> bool:
        """Whether the next batch is there, waiting up to so many seconds for it. Errors as those of `next`."""
        return self._begun().ready(timeout)

    def get_state(self) -> dict[str, Any]:
        """The position, ready for JSON, with what the stream depends on."""
        position = {"next_batch": self._next_batch, "bad_records": self._bad.count}
        legs = {"legs": [dataclasses.astuple(leg) for leg in self._legs]} if self._legs else {}
        return self._stream | position | legs

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to the position of a `get_state`: what follows is bit for bit what followed then.

        The number of workers may differ. The number of processes may too, with as many records in all of their batches
        together: then what is left of the epoch is shared out anew, and each record still comes once. Raises
        ConfigError if the state is of another stream of batches.
        """
        legs = [Leg(*leg) for leg in state.get("legs", ())]
        here, there = self._stream["process_count"], state["process_count"]
        moved = there != here and state["batch_size"] * there == self._stream["batch_size"] * here
        moved &= state["records"] == len(self.source) // there
        for name, here in self._stream.items():
            if (name in _LATER and name not in state) or (moved and name in _OF_SHARES):
                continue
            saved = state.get(name)  # None where another kind of source was read
            if saved != here:
                raise ConfigError(
                    f"the data position was saved with {name}={saved}, and this run has {name}={here}: "
                    f"go back to {saved}, or start in a new folder from that checkpoint's weights"
                )
        self.close()
        self._legs, self._next_batch, self._bad.count = legs, state["next_batch"], state["bad_records"]
        if moved:
            self._legs += [Leg(state["process_count"], state["batch_size"], state["next_batch"])]
            self._next_batch = 0
            _LOG.info("%d shares of the data become %d: what is left of the epoch is shared out anew", there, here)

    def set_states(self, states: Sequence[dict[str, Any]]) -> None:
        """`set_state` from those of all processes of the run, of which there may be more or fewer now."""
        own = [state for state in states if state["process_index"] == self._stream["process_index"]]
        bad = sum(state["bad_records"] for state in states)
        is_same = states[0]["process_count"] == self._stream["process_count"]
        self.set_state(own[0] if is_same and own else states[0] | {"bad_records": bad // self._stream["process_count"]})

    def close(self) -> None:
        """Ends the reading threads and worker processes; the next batch starts them again."""
        if self._iterator is not None:
            atexit.unregister(self.close)
            self._iterator.close()
            self._iterator = None

    def _begun(self) -> ReadAhead:
        if self._iterator is None:
            batches = self._make_batches(self._legs)
            self._iterator = ReadAhead(batches.slice(slice(self._next_batch, None)), self._num_workers)
            atexit.register(self.close)  # Python would wait for workers, which heed no signal
        return self._iterator


def make_loader(
    config: DataConfig,
    autoencoder: AutoencoderConfig,
    *,
    condition: Condition,
    batch_size: int,
    seed: int,
    lineage: Sequence[int] = (),
    process_index: int = 0,
    process_count: int = 1,
    source: Source | None = None,
) -> Loader:
    """Loader of process `process_index` of `process_count`, in batches of `batch_size` for this process.

    x is pixels in [-1, 1], or with an autoencoder a sample of the latents' posterior already times its scale.
    condition: what a batch has beside x, from a record, see `Condition`. source: the records, by default what the
    config names; of images, or with an autoencoder of latents.

    lineage: what else the draws depend on, for a run that goes on from another's weights with the same seed.

    The shares of the processes are disjoint. Every epoch has each record of the share once, in another order and
    with other crops, flips and noise; batches run on over the end of an epoch. With `num_workers`, so many processes
    make whole batches in turn: source and condition must then be picklable, and the caller's main module importable
    (`if __name__ == "__main__"`). Raises ConfigError or DataError for what cannot work, before anything is read.
    """
    if source is None:
        source = make_source(config, autoencoder)
    share = ProcessShare(source, process_index, process_count)
    if not len(share):
        raise DataError(f"the data has {len(source)} records for {process_count} processes: each of them needs one")
    if seed < 0:
        raise ConfigError(f"seed={seed} must not be negative")
    if not 0 < batch_size <= len(share):
        raise ConfigError(
            f"train.batch_size: {batch_size} in each of {process_count} processes do not fit the {len(share)} records "
            f"that the data gives each: use 1 to {len(share)} times the number of processes"
        )
    shuffles = Shuffles(len(source), seed, lineage)

    def make_batches(legs: Sequence[Leg]) -> grain.MapDataset:
        extra = shuffles.left_over(legs)[process_index::process_count]
        share = ProcessShare(source, process_index, process_count, extra)
        order_seed, random_seed = shuffles.seeds(legs, process_index)
        # Positions go through Grain, and records are read a batch at a time: Grain's own work for an element costs more
        # than reading a latent.
        return (
            shuffled(len(share), len(extra), order_seed)
            .batch(batch_size, batch_fn=np.asarray)
            .random_map(Portable(_batch_maker(config, autoencoder, share, condition)), seed=random_seed)
        )

    stream: dict[str, Any] = {
        "records": len(share),
        "batch_size": batch_size,
        "seed": seed,
        "process_index": process_index,
        "process_count": process_count,
        "height": config.image_height,
        "width": config.image_width,
    }
    if lineage:
        stream["lineage"] = list(lineage)
    if hasattr(source, "fingerprint"):
        stream["data"] = source.fingerprint
    if isinstance(source, Latents):
        stream["vae"] = source.metadata.vae_id
        if source.text_id:
            stream["text"] = source.text_id
    return Loader(source, make_batches, config.num_workers, config.max_bad_share, stream)


def _batch_maker(
    config: DataConfig, autoencoder: AutoencoderConfig, share: ProcessShare, condition: Condition
) -> ImageBatch | LatentBatch:
    if autoencoder.kind == "none":
        return ImageBatch(share, condition, config)
    height, width = config.image_height // autoencoder.downsample, config.image_width // autoencoder.downsample
    shape = height, width, autoencoder.latent_channels
    return LatentBatch(share, condition, shape, autoencoder, config.flip)
