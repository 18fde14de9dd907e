"""A run of samples on disk in equal shards, which several processes fill side by side."""

import logging
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ledit_jax.errors import DataError, OutputError
from ledit_jax.files import PieceFolder, Place, is_bucket
from ledit_jax.files.readers import Shape, check_json, check_npy, read_npy
from ledit_jax.parallel.processes import gather_json, is_main_process, main_process_first
from ledit_jax.progress import progress_bar
from ledit_jax.sampling.writers import check_out

_log = logging.getLogger(__name__)

WAIT = 0.2
"""Seconds between looks at what other processes have done."""
_NOTE = "recipe.json"


class SampleShards:
    """A folder with one .npy for each run of `size` samples."""

    def __init__(self, pieces: PieceFolder):
        self.folder = pieces.folder
        note = pieces.path(_NOTE)
        settings = check_json(pieces.settings, note, fields={"recipe": dict, "shard_size": int})
        recipe = check_json(settings["recipe"], note, fields={"num_samples": int})
        self.num_samples: int = recipe["num_samples"]
        self.size: int = settings["shard_size"]
        if self.num_samples < 1 or self.size < 1:
            raise DataError(f"{note}: num_samples={self.num_samples} and shard_size={self.size}: remove the folder")
        self._pieces = pieces
        self._names = [f"{index:06d}.npy" for index in range(-(-self.num_samples // self.size))]

    @property
    def count(self) -> int:
        """How many shards there are when all are."""
        return len(self._names)

    def missing(self, indices: Iterable[int]) -> list[int]:
        """Those of the shards that are not there."""
        indices = list(indices)
        left = set(self._pieces.missing(self._names[index] for index in indices))
        return [index for index in indices if self._names[index] in left]

    def remove_damaged(self, indices: Iterable[int]) -> None:
        """Removes those of the shards that are cut short or hold something else, so that they are drawn again.

        An object in a bucket is whole.
        """
        if is_bucket(self.folder):
            return
        for index in indices:
            try:
                if not self.missing([index]):
                    check_npy(self._pieces.path(self._names[index]), *self._kind(index))
            except DataError as error:
                _log.warning("drawn again, since %s", str(error).rpartition(": ")[0])
                self._pieces.path(self._names[index]).unlink()

    def range(self, index: int) -> range:
        """The samples of a shard."""
        return range(index * self.size, min((index + 1) * self.size, self.num_samples))

    def write(self, index: int, images: UInt8[np.ndarray, "B H W C"]) -> None:
        """Stores a shard."""
        images = np.ascontiguousarray(images)
        with self._pieces.write(self._names[index]) as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(images))
            file.write(images.data)  # np.save does not see that the last bytes found no room

    def read(self, index: int) -> UInt8[np.ndarray, "B H W C"]:
        """The images of a shard. Raises DataError for a damaged one."""
        return self._pieces.read(self._names[index], lambda path: read_npy(path, *self._kind(index)))

    def _kind(self, index: int) -> tuple[Shape, str, str]:
        return (len(self.range(index)), None, None, None), "uint8", "remove it, and it is made again"

    def wait_for_all(self) -> None:
        """Until the other processes have written theirs. (One that dies takes this one with it, by jax.distributed.)"""
        missing = self.missing(range(self.count))
        with progress_bar("wait for other processes", len(missing), "shard", disable=not missing) as bar:
            while missing:
                time.sleep(WAIT)
                self.check_there()
                left = self.missing(missing)
                bar.update(len(missing) - len(left))
                missing = left

    def check_there(self) -> None:
        """Raises OutputError for a folder that went away."""
        self._pieces.check_there()

    def remove_if_empty(self) -> None:
        """Removes the folder, unless there is a shard."""
        if len(self.missing(range(self.count))) == self.count:
            self.remove()

    def remove(self) -> None:
        """Removes the folder."""
        self._pieces.remove()


def open_shards(out: Place, recipe: dict[str, Any], size: int, overwrite: bool) -> SampleShards:
    """The shards in OUT.shards of an earlier run with this recipe, whatever their size, or new ones of `size`.

    Every process of a run calls it. The main process prepares the folder; what it refuses, all refuse, and all must
    see the folder. Raises OutputError where it, or `out`, holds something else and `overwrite` is not set.
    """
    folder = out.with_name(f"{out.name}.shards")

    def prepare() -> SampleShards:
        if PieceFolder.find(folder, _NOTE) is None:
            check_out(out, overwrite)
        settings = {"recipe": recipe, "shard_size": size}
        return SampleShards(PieceFolder.open(folder, _NOTE, settings, free=("shard_size",), overwrite=overwrite))

    shards = main_process_first(prepare)
    if not is_main_process():
        found = PieceFolder.find(folder, _NOTE)
        shards = found and SampleShards(found)
    if not all(gather_json(shards is not None)):
        raise OutputError(f"out={out} is not seen by all processes: use a file system that all of them mount")
    return shards
