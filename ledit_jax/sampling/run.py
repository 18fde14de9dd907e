"""Many samples for a metric: drawn in shards that survive a kill, shared out over processes, assembled as a stream.

While it goes, OUT.shards holds the recipe and a file for each shard that is done. The same command goes on from there,
with any number of processes and devices, since image i is a function of the seed and i.
"""

import importlib.metadata
import logging
import time

import jax
import numpy as np

from ledit_jax.errors import ConfigError, OutputError
from ledit_jax.files import Place, as_place, recipe_path, write_json
from ledit_jax.files.refusals import free_bytes
from ledit_jax.parallel.processes import is_main_process
from ledit_jax.progress import progress_bar
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.prompts import Asked
from ledit_jax.sampling.recipe import Recipe
from ledit_jax.sampling.requests import check_memory, check_numbers
from ledit_jax.sampling.shards import WAIT, SampleShards, open_shards
from ledit_jax.sampling.writers import check_name, open_writer

_log = logging.getLogger(__name__)


def write_grid(
    out: str | Place, pipeline: LEDiTPipeline, recipe: Recipe, *, batch_size: int, columns: int, overwrite: bool
) -> None:
    """Draws one image of all samples, the recipe beside it.

    Called by every process of a run, with a pipeline over all devices.
    """
    check_run(as_place(out), pipeline, recipe, batch_size)
    batches = pipeline.batches(
        recipe.choose(),
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
    write_recipe(as_place(out), recipe)


def write_samples(
    out: str | Place, pipeline: LEDiTPipeline, recipe: Recipe, *, batch_size: int, overwrite: bool = False
) -> None:
    """Draws the samples of a recipe and writes them to `out` (.npz or a folder), the recipe beside it.

    Called by every process of a run, each with a pipeline over its own devices; they need one file system. Goes on
    with what an earlier call with the same recipe left. batch_size: images at a time on each device. Raises
    OutputError for an `out` that exists (unless `overwrite`) or has shards of another recipe, and errors as
    `LEDiTPipeline.batches` does.
    """
    out = as_place(out)
    check_run(out, pipeline, recipe, batch_size)
    asked = pipeline.check(recipe.choose(), recipe.height, recipe.width)
    shards = open_shards(out, recipe.to_dict(), batch_size * pipeline.mesh.size, overwrite)
    mine = range(jax.process_index(), shards.count, jax.process_count())
    shards.remove_damaged(mine)
    todo = shards.missing(mine)
    total, left = (sum(len(shards.range(index)) for index in indices) for indices in (mine, todo))
    if left < total:
        _log.info("%d of %d images are there already", total - left, total)
    with progress_bar("sample", total, "image", done=total - left, disable=not is_main_process()) as bar:
        for index in todo:
            try:
                images = _draw(pipeline, recipe, asked, shards.range(index), batch_size)
            except ConfigError:  # found out as it is compiled: other settings should find no trace of these
                shards.remove_if_empty()
                raise
            shards.write(index, images)
            bar.update(len(images))
    if is_main_process():
        shards.check_there()
        shards.wait_for_all()
        _assemble(shards, out, recipe)
    else:
        while shards.folder.exists():
            time.sleep(WAIT)


def check_run(out: Place, pipeline: LEDiTPipeline, recipe: Recipe, batch_size: int) -> None:
    """Raises ConfigError for what cannot be or does not fit in memory, and OutputError for what the disk cannot hold.

    batch_size: images at a time on each device.
    """
    check_name(out)
    check_numbers(recipe.height, recipe.width, batch_size, recipe.seed)
    needed, free = recipe.num_samples * recipe.height * recipe.width * 3, free_bytes(out)
    if needed > free:
        raise OutputError(
            f"num_samples={recipe.num_samples} with height={recipe.height} and width={recipe.width} are "
            f"{needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free for out={out}: draw fewer or smaller "
            "ones, or choose another place"
        )
    images = min(batch_size, -(-recipe.num_samples // pipeline.mesh.size)) if out.suffix == ".png" else batch_size
    size = recipe.height, recipe.width
    check_memory(pipeline.config, pipeline.network, pipeline.mesh, recipe.options, batch_size, images, *size)


def _draw(pipeline: LEDiTPipeline, recipe: Recipe, asked: Asked, indices: range, batch_size: int) -> np.ndarray:
    """The images of some indices. Each device always runs the same program on the same neighbours, so that the number
    of devices changes nothing, to the last bit."""
    size = batch_size * pipeline.mesh.size
    shape, seed = (recipe.height, recipe.width), recipe.seed
    batches = []
    for start in range(indices.start, indices.stop, size):
        places = np.arange(start, start + size)
        batch = asked.take(places)  # what fills up the last batch is thrown away
        batches.append(pipeline.decode(pipeline.sample_latents(batch, places, *shape, recipe.options, seed)))
    return np.concatenate(batches)[: len(indices)]


def _assemble(shards: SampleShards, out: Place, recipe: Recipe) -> None:
    """Streams the shards into place, one in memory at a time, and removes them."""
    prompts = None if recipe.prompts is None else recipe.choose()
    with (
        open_writer(out, shards.num_samples, columns=1, overwrite=True, prompts=prompts) as write,
        progress_bar("assemble", shards.num_samples, "image") as bar,
    ):
        for index in range(shards.count):
            images = shards.read(index)
            write(images)
            bar.update(len(images))
        write_recipe(out, recipe)
    shards.remove()


def write_recipe(out: Place, recipe: Recipe) -> None:
    """Beside `out`: how it was made, and with which versions."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    write_json(recipe_path(out), recipe.to_dict() | {"versions": versions})
