"""Many samples for a metric: drawn in shards that survive a kill, shared out over processes, assembled as a stream.

While it goes, OUT.shards holds the recipe and a file for each shard that is done. The same command goes on from there,
with any number of processes and devices, since picture i is a function of the seed and i.
"""

import dataclasses
import importlib.metadata
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int
from tqdm import tqdm

from ledit_jax.config import ConfigError, SampleConfig
from ledit_jax.distributed import is_lead
from ledit_jax.pipeline import LEDiTPipeline
from ledit_jax.writers import check_out, make_writer, recipe_path

_log = logging.getLogger(__name__)
_WAIT = 0.2  # seconds between looks at what other processes have done


@dataclass(frozen=True)
class Recipe:
    """Everything that a run of samples depends on; saved beside them, and compared before one is gone on with."""

    checkpoint: str
    step: int
    """The training step of the checkpoint."""
    weights: str
    """"ema" or "params"."""
    vae: str | None
    labels: Literal["balanced", "random"]
    classes: tuple[int, ...]
    num_samples: int
    height: int
    width: int
    seed: int
    options: SampleConfig

    def choose_labels(self) -> Int[np.ndarray, "num_samples"]:
        """ "balanced": the classes in turn, so that their counts differ by one at most. "random": each uniformly drawn.

        Label i does not depend on the number of samples.
        """
        classes = np.asarray(self.classes)
        if self.labels == "balanced":
            return np.resize(classes, self.num_samples)
        generator = np.random.Generator(np.random.Philox(key=[self.seed % 2**64, 1]))
        return classes[np.floor(generator.random(self.num_samples) * len(classes)).astype(int)]

    def to_dict(self) -> dict[str, Any]:
        """Flat, as JSON gives it back."""
        values = dataclasses.asdict(self)
        return json.loads(json.dumps(values | values.pop("options")))


def write_grid(
    out: str | Path, pipeline: LEDiTPipeline, recipe: Recipe, *, batch_size: int, columns: int, overwrite: bool
) -> None:
    """Draws one picture of all samples. Called by every process of a run, with a pipeline over all devices."""
    batches = pipeline.batches(
        recipe.choose_labels(),
        recipe.height,
        recipe.width,
        options=recipe.options,
        seed=recipe.seed,
        batch_size=batch_size * pipeline.mesh.size,
        progress="sample",
    )
    if not is_lead():  # all draw together, one writes
        for _ in batches:
            pass
        return
    writer = make_writer(out, recipe.num_samples, columns, overwrite)
    for pictures in batches:
        writer.write(pictures)
    writer.close()


def write_samples(
    out: str | Path, pipeline: LEDiTPipeline, recipe: Recipe, *, batch_size: int, overwrite: bool = False
) -> None:
    """Draws the samples of a recipe and writes them to `out` (.npz or a folder), the recipe beside it.

    Called by every process of a run, each with a pipeline over its own devices; they need one file system. Goes on
    with what an earlier call with the same recipe left. batch_size: pictures at a time on each device. Raises
    ConfigError for an `out` that exists (unless `overwrite`) or has shards of another recipe, and as
    `LEDiTPipeline.batches` does.
    """
    out = Path(out)
    labels = pipeline.check(recipe.choose_labels(), recipe.height, recipe.width)
    shards = _agree(lambda: _Shards.open(out, recipe.to_dict(), batch_size * pipeline.mesh.size, overwrite), out)
    mine = range(jax.process_index(), shards.count, jax.process_count())
    todo = [index for index in mine if not shards.path(index).exists()]
    total, left = (sum(len(shards.range(index)) for index in indices) for indices in (mine, todo))
    if left < total:
        _log.info("%d of %d pictures are there already", total - left, total)
    with _bar("sample", total, total - left, disable=not is_lead()) as bar:
        for index in todo:
            shards.write(index, _draw(pipeline, recipe, labels, shards.range(index), batch_size))
            bar.update(len(shards.range(index)))
    if is_lead():
        shards.wait_for_all()
        _assemble(shards, out, recipe)
    else:
        while shards.folder.exists():
            time.sleep(_WAIT)


def _draw(pipeline: LEDiTPipeline, recipe: Recipe, labels: np.ndarray, indices: range, batch_size: int) -> np.ndarray:
    """The pictures of some indices. Each device always runs the same program on the same neighbours, so that the number
    of devices changes nothing, to the last bit."""
    size = batch_size * pipeline.mesh.size
    shape, seed = (recipe.height, recipe.width), recipe.seed
    batches = []
    for start in range(indices.start, indices.stop, size):
        places = np.arange(start, start + size)
        batch = np.take(labels, places, mode="wrap")  # what fills up the last batch is thrown away
        batches.append(pipeline.decode(pipeline.sample_latents(batch, places, *shape, recipe.options, seed)))
    return np.concatenate(batches)[: len(indices)]


def _agree(open_shards: "Callable[[], _Shards]", out: Path) -> "_Shards":
    """Process 0 prepares the folder; what it refuses, all refuse, and all must see the folder."""
    shards, failure = None, None
    if is_lead():
        try:
            shards = open_shards()
        except ConfigError as error:
            failure = error
    if jax.process_count() > 1:
        size = multihost_utils.broadcast_one_to_all(np.int64(shards.size if shards else 0))
        if failure is None and not size:
            raise ConfigError(f"--out={out} was refused by process 0: see its message")
        if failure is None and not is_lead():
            shards = _Shards.read(out)
        seen = multihost_utils.process_allgather(np.bool_(failure is not None or shards is not None))
        if not np.all(seen):
            raise ConfigError(f"--out={out} is not seen by all processes: use a file system that all of them mount")
    if failure is not None:
        raise failure
    return shards


class _Shards:
    """A folder with one .npy for each run of `size` pictures."""

    def __init__(self, folder: Path, num_samples: int, size: int):
        self.folder, self.num_samples, self.size = folder, num_samples, size

    @property
    def count(self) -> int:
        return -(-self.num_samples // self.size)

    @classmethod
    def open(cls, out: Path, recipe: dict[str, Any], size: int, overwrite: bool) -> "_Shards":
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
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _write_json(folder / "recipe.json", {"recipe": recipe, "shard_size": size})
        except OSError as error:
            raise ConfigError(f"--out={out} cannot be written ({error.strerror}): choose another place") from error
        return cls(folder, recipe["num_samples"], size)

    @classmethod
    def read(cls, out: Path) -> "_Shards | None":
        """The folder that process 0 has opened; None if it is not seen from here."""
        note = _read_json(_folder(out) / "recipe.json")
        return note and cls(_folder(out), note["recipe"]["num_samples"], note["shard_size"])

    def path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npy"

    def range(self, index: int) -> range:
        """The pictures of a shard."""
        return range(index * self.size, min((index + 1) * self.size, self.num_samples))

    def write(self, index: int, pictures: np.ndarray) -> None:
        aside = self.folder / f".{index:06d}.partial"
        with open(aside, "wb") as file:
            np.save(file, pictures)
        os.replace(aside, self.path(index))

    def wait_for_all(self) -> None:
        """Until the other processes have written theirs. (One that dies takes this one with it, by jax.distributed.)"""
        missing = [index for index in range(self.count) if not self.path(index).exists()]
        with _bar("wait for other processes", len(missing), 0, disable=not missing) as bar:
            while missing:
                time.sleep(_WAIT)
                left = [index for index in missing if not self.path(index).exists()]
                bar.update(len(missing) - len(left))
                missing = left


def _assemble(shards: _Shards, out: Path, recipe: Recipe) -> None:
    """Streams the shards into place, one in memory at a time, and removes them."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    writer = make_writer(out, shards.num_samples, columns=1, overwrite=True)
    with _bar("assemble", shards.num_samples, 0) as bar:
        for index in range(shards.count):
            pictures = np.load(shards.path(index))
            writer.write(pictures)
            bar.update(len(pictures))
    _write_json(recipe_path(out), recipe.to_dict() | {"versions": versions})
    writer.close()
    shutil.rmtree(shards.folder)


def _folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.shards")


def _bar(caption: str, total: int, done: int, disable: bool = False) -> tqdm:
    every = 0.1 if sys.stderr.isatty() else 10.0  # seconds; a log wants few lines
    return tqdm(desc=caption, total=total, initial=done, unit="picture", mininterval=every, disable=disable)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError:  # it is written aside, so this is none of ours
        return None


def _write_json(path: Path, values: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(aside, path)
