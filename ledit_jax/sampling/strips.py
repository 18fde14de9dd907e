"""The way from noise to image, to look at: a row of stages for each sample."""

from pathlib import Path

import numpy as np
from jaxtyping import Array, Float, UInt8

from ledit_jax.errors import ConfigError
from ledit_jax.files import Place, as_place
from ledit_jax.parallel.processes import is_main_process
from ledit_jax.progress import progress_bar
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.recipe import Recipe
from ledit_jax.sampling.requests import check_memory, check_numbers
from ledit_jax.sampling.run import write_recipe
from ledit_jax.sampling.writers import open_writer

_MOST_SAMPLES = 64
"""Rows of an image that somebody looks at; all are drawn at once."""


def stage_steps(stages: int, num_steps: int) -> list[int]:
    """Steps after which to look, evenly spread: the first is 0, noise, and the last the image.

    Raises ConfigError for fewer than two, or more than there are.
    """
    if not 2 <= stages <= num_steps + 1:
        raise ConfigError(f"strip={stages} must be 2 to {num_steps + 1}: noise, and what num_steps={num_steps} leave")
    return [round(stage * num_steps / (stages - 1)) for stage in range(stages)]


def draw_strip(pipeline: LEDiTPipeline, recipe: Recipe, stages: int) -> UInt8[np.ndarray, "N stages h w C"]:
    """The samples of a recipe at so many stages. The last are the images that `LEDiTPipeline` draws."""
    options = recipe.options
    at, kept = stage_steps(stages, options.num_steps), []
    size, count = (recipe.height, recipe.width), recipe.num_samples
    check_numbers(*size, count, recipe.seed)
    each = -(-count // pipeline.mesh.size)
    check_memory(pipeline.config, pipeline.network, pipeline.mesh, options, count, each, *size)
    asked = pipeline.check(recipe.choose(), *size)
    indices = np.arange(each * pipeline.mesh.size)
    with progress_bar("strip", options.num_steps, "step", disable=not is_main_process()) as bar:

        def look(step: int, latents: Float[Array, "B H W C"]) -> None:
            bar.update(int(step > 0))
            if step in at:
                kept.append(pipeline.decode(latents)[:count])

        pipeline.sample_latents(asked.take(indices % count), indices, *size, options, recipe.seed, look)
    return np.stack(kept, axis=1)


def write_strip(out: str | Place, pipeline: LEDiTPipeline, recipe: Recipe, stages: int, overwrite: bool) -> None:
    """Draws and writes them as one image, the recipe beside it. Called by all processes together."""
    if Path(out).suffix != ".png":
        raise ConfigError(f"out={out}: a strip is one image, so its name has to end with .png")
    if recipe.num_samples > _MOST_SAMPLES:
        raise ConfigError(f"num_samples={recipe.num_samples} are too many for a strip: use at most {_MOST_SAMPLES}")
    images = draw_strip(pipeline, recipe, stages)
    if is_main_process():
        with open_writer(out, images.shape[0], stages, overwrite) as write:
            write(images.reshape(-1, *images.shape[2:]))
        write_recipe(as_place(out), recipe)
