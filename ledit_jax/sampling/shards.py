"""A run of images on disk in equal parts, each whole or not there, which several processes fill side by side."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import UInt8

from ledit_jax.errors import ConfigError
from ledit_jax.files import whole_file, write_json
from ledit_jax.parallel.processes import is_main_process
from ledit_jax.progress import progress_bar
from ledit_jax.sampling.writers import check_out

WAIT = 0.2
"""Seconds between looks at what other processes have done."""


def agree(open_shards: "Callable[[], Shards]", out: Path) -> "Shards":
    """Process 0 prepares the folder; what it refuses, all refuse, and all must see the folder."""
    shards, failure = None, None
    if is_main_process():
        try:
            shards = open_shards()
        except ConfigError as error:
            failure = error
    if jax.process_count() > 1:
        size = multihost_utils.broadcast_one_to_all(np.int64(shards.size if shards else 0))
        if failure is None and not size:
            raise ConfigError(f"--out={out} was refused by process 0: see its message")
        if failure is None and not is_main_process():
            shards = Shards.read(out)
        seen = multihost_utils.process_allgather(np.bool_(failure is not None or shards is not None))
        if not np.all(seen):
            raise ConfigError(f"--out={out} is not seen by all processes: use a file system that all of them mount")
    if failure is not None:
        raise failure
    return shards


class Shards:
    """A folder with one .npy for each run of `size` images."""

    def __init__(self, folder: Path, num_samples: int, size: int):
        self.folder, self.num_samples, self.size = folder, num_samples, size

    @property
    def count(self) -> int:
        """How many shards there are when all are."""
        return -(-self.num_samples // self.size)

    @classmethod
    def open(cls, out: Path, recipe: dict[str, Any], size: int, overwrite: bool) -> "Shards":
        """The folder of an earlier run with this recipe, or a new one."""
        folder = _folder(out)
        earlier = _read_json(folder / "recipe.json")
        if earlier is not None and earlier["recipe"] == recipe:
            return cls(folder, recipe["num_samples"], earlier["shard_size"])
        if earlier is not None and not overwrite:
            there = earlier["recipe"]
            differ = [f"{k}={there.get(k)} there, {v} here" for k, v in recipe.items() if there.get(k) != v]
            raise ConfigError(
                f"{folder} holds the samples of another recipe ({'; '.join(differ)}): give the flags of that run to go "
                "on with it, another --out, or --overwrite to start anew"
            )
        check_out(out, overwrite)
        if earlier is None and folder.exists() and any(folder.iterdir()):
            raise ConfigError(
                f"{folder} is where samples are kept while they are drawn, and holds other things: move it"
            )
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_json(folder / "recipe.json", {"recipe": recipe, "shard_size": size})
        except OSError as error:
            raise ConfigError(f"--out={out} cannot be written ({error.strerror}): choose another place") from error
        return cls(folder, recipe["num_samples"], size)

    @classmethod
    def read(cls, out: Path) -> "Shards | None":
        """The folder that process 0 has opened; None if it is not seen from here."""
        note = _read_json(_folder(out) / "recipe.json")
        return note and cls(_folder(out), note["recipe"]["num_samples"], note["shard_size"])

    def path(self, index: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{index:06d}.npy"

    def range(self, index: int) -> range:
        """The images of a shard."""
        return range(index * self.size, min((index + 1) * self.size, self.num_samples))

    def write(self, index: int, images: UInt8[np.ndarray, "B H W C"]) -> None:
        """Stores a shard."""
        with whole_file(self.path(index)) as file:
            np.save(file, images)

    def wait_for_all(self) -> None:
        """Until the other processes have written theirs. (One that dies takes this one with it, by jax.distributed.)"""
        missing = [index for index in range(self.count) if not self.path(index).exists()]
        with progress_bar("wait for other processes", len(missing), "shard", disable=not missing) as bar:
            while missing:
                time.sleep(WAIT)
                left = [index for index in missing if not self.path(index).exists()]
                bar.update(len(missing) - len(left))
                missing = left


def _folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.shards")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError:  # it is written aside, so this is none of ours
        return None
