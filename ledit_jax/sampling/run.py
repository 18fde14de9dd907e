"""Many samples for a metric: drawn in shards that survive a kill, shared out over processes, assembled as a stream.

While it goes, OUT.shards holds the recipe and a file for each shard that is done. The same command goes on from there,
with any number of processes and devices, since image i is a function of the seed and i.
"""

import dataclasses
import importlib.metadata
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from ledit_jax.config import SampleConfig
from ledit_jax.errors import ConfigError, OutputError
from ledit_jax.files import recipe_path, write_json
from ledit_jax.files.refusals import free_bytes
from ledit_jax.parallel.memory import check_fits, device_memory
from ledit_jax.parallel.processes import is_main_process
from ledit_jax.progress import progress_bar
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.shards import WAIT, SampleShards, open_shards
from ledit_jax.sampling.writers import check_name, open_writer
from ledit_jax.weights import find_checkpoint, load_description, weights_id

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that a run of samples depends on; saved beside them, and compared before one is gone on with."""

    checkpoint: str
    step: int
    """The training step of the checkpoint."""
    weights: str
    """"ema" or "params"."""
    weights_id: str
    """See `ledit_jax.weights.weights_id`: a checkpoint that was trained anew has another one."""
    vae: str | None
    vae_id: str | None
    """The same of the autoencoder."""
    labels: Literal["balanced", "random"]
    classes: tuple[int, ...]
    num_samples: int
    height: int
    width: int
    seed: int
    options: SampleConfig

    def choose_labels(self) -> list[int]:
        """ "balanced": the classes in turn, so that their counts differ by one at most. "random": each uniformly drawn.

        Label i does not depend on the number of samples.
        """
        classes = np.asarray(self.classes)
        if self.labels == "balanced":
            return np.resize(classes, self.num_samples).tolist()
        generator = np.random.Generator(np.random.Philox(key=[self.seed % 2**64, 1]))
        return classes[np.floor(generator.random(self.num_samples) * len(classes)).astype(int)].tolist()

    def to_dict(self) -> dict[str, Any]:
        """Flat, as JSON gives it back."""
        values = dataclasses.asdict(self)
        return json.loads(json.dumps(values | values.pop("options")))


def make_recipe(
    pipeline: LEDiTPipeline,
    *,
    checkpoint: str | Path,
    options: SampleConfig,
    classes: Sequence[int] | None = None,
    num_samples: int | None = None,
    height: int | None = None,
    width: int | None = None,
    labels: str = "balanced",
    weights: str = "ema",
    vae: str | None = None,
    seed: int = 0,
) -> Recipe:
    """By default all classes, one image of each, of the size that the checkpoint was trained at."""
    config, folder = pipeline.config, find_checkpoint(checkpoint)
    classes = tuple(range(config.model.num_classes)) if classes is None else tuple(classes)
    num_samples = len(classes) if num_samples is None else num_samples
    if num_samples < 1:
        raise ConfigError(f"num_samples={num_samples} must be at least 1")
    vae = vae or config.autoencoder.checkpoint or None
    return Recipe(
        checkpoint=str(folder),
        step=load_description(folder)["step"],
        weights=weights,
        weights_id=weights_id(folder, weights),
        vae=vae,
        vae_id=weights_id(vae, "vae") if vae else None,
        labels=labels,
        classes=classes,
        num_samples=num_samples,
        height=config.data.image_height if height is None else height,
        width=config.data.image_width if width is None else width,
        seed=seed,
        options=options,
    )


def write_grid(
    out: str | Path, pipeline: LEDiTPipeline, recipe: Recipe, *, batch_size: int, columns: int, overwrite: bool
) -> None:
    """Draws one image of all samples. Called by every process of a run, with a pipeline over all devices."""
    _check(Path(out), pipeline, recipe, batch_size)
    batches = pipeline.batches(
        recipe.choose_labels(),
        recipe.height,
        recipe.width,
        options=recipe.options,
        seed=recipe.seed,
        batch_size=batch_size * pipeline.mesh.size,
        progress="sample",
    )
    if not is_main_process():  # all draw together, one writes
        for _ in batches:
            pass
        return
    with open_writer(out, recipe.num_samples, columns, overwrite) as write:
        for images in batches:
            write(images)


def write_samples(
    out: str | Path, pipeline: LEDiTPipeline, recipe: Recipe, *, batch_size: int, overwrite: bool = False
) -> None:
    """Draws the samples of a recipe and writes them to `out` (.npz or a folder), the recipe beside it.

    Called by every process of a run, each with a pipeline over its own devices; they need one file system. Goes on
    with what an earlier call with the same recipe left. batch_size: images at a time on each device. Raises
    OutputError for an `out` that exists (unless `overwrite`) or has shards of another recipe, and errors as
    `LEDiTPipeline.batches` does.
    """
    out = Path(out)
    _check(out, pipeline, recipe, batch_size)
    labels = pipeline.check(recipe.choose_labels(), recipe.height, recipe.width)
    shards = open_shards(out, recipe.to_dict(), batch_size * pipeline.mesh.size, overwrite)
    mine = range(jax.process_index(), shards.count, jax.process_count())
    shards.remove_damaged(mine)
    todo = shards.missing(mine)
    total, left = (sum(len(shards.range(index)) for index in indices) for indices in (mine, todo))
    if left < total:
        _log.info("%d of %d images are there already", total - left, total)
    with progress_bar("sample", total, "image", done=total - left, disable=not is_main_process()) as bar:
        for index in todo:
            shards.write(index, _draw(pipeline, recipe, labels, shards.range(index), batch_size))
            bar.update(len(shards.range(index)))
    if is_main_process():
        shards.wait_for_all()
        _assemble(shards, out, recipe)
    else:
        while shards.folder.exists():
            time.sleep(WAIT)


def _check(out: Path, pipeline: LEDiTPipeline, recipe: Recipe, batch_size: int) -> None:
    """Raises ConfigError for what cannot be or does not fit in memory, and OutputError for what the disk cannot hold.

    batch_size: images at a time on each device.
    """
    check_name(out)
    if not -(2**63) <= recipe.seed < 2**63:
        raise ConfigError(f"seed={recipe.seed} is too large: use one that is less than 2^63")
    needed, free = recipe.num_samples * recipe.height * recipe.width * 3, free_bytes(out)
    if needed > free:
        raise OutputError(
            f"num_samples={recipe.num_samples} of {recipe.height}x{recipe.width} pixels are {needed / 2**30:,.1f} GiB, "
            f"and {free / 2**30:,.1f} GiB are free for out={out}: draw fewer or smaller ones, or choose another place"
        )
    tokens = pipeline.config.num_tokens(recipe.height, recipe.width)
    images = min(batch_size, recipe.num_samples) if out.suffix == ".png" else batch_size
    check_fits(
        f"batch_size={batch_size} with height={recipe.height} and width={recipe.width}",
        4 * images * tokens * pipeline.config.model.width,  # one activation of one block
        device_memory(pipeline.mesh.devices.flatten().tolist()[:1]),
        "use a smaller batch or smaller images",
    )


def _draw(pipeline: LEDiTPipeline, recipe: Recipe, labels: np.ndarray, indices: range, batch_size: int) -> np.ndarray:
    """The images of some indices. Each device always runs the same program on the same neighbours, so that the number
    of devices changes nothing, to the last bit."""
    size = batch_size * pipeline.mesh.size
    shape, seed = (recipe.height, recipe.width), recipe.seed
    batches = []
    for start in range(indices.start, indices.stop, size):
        places = np.arange(start, start + size)
        batch = np.take(labels, places, mode="wrap")  # what fills up the last batch is thrown away
        batches.append(pipeline.decode(pipeline.sample_latents(batch, places, *shape, recipe.options, seed)))
    return np.concatenate(batches)[: len(indices)]


def _assemble(shards: SampleShards, out: Path, recipe: Recipe) -> None:
    """Streams the shards into place, one in memory at a time, and removes them."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    with (
        open_writer(out, shards.num_samples, columns=1, overwrite=True) as write,
        progress_bar("assemble", shards.num_samples, "image") as bar,
    ):
        for index in range(shards.count):
            images = shards.read(index)
            write(images)
            bar.update(len(images))
        write_json(recipe_path(out), recipe.to_dict() | {"versions": versions})
    shards.remove()
