"""A downloaded folder, or a file, as a checkpoint of ours with all that belongs to it."""

import contextlib
import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax

from ledit_jax.errors import CheckpointError, LEDiTError, OutputError
from ledit_jax.files.readers import check_json, read_json
from ledit_jax.hub.contents import LIBRARY, has_weights
from ledit_jax.weights.about import About, read_about, write_about

_BESIDE = {"vae": "autoencoder", "text_encoder": "text_encoder"}
"""Folders of a pipeline, and what they are called beside a checkpoint."""


def convert_all(source: Path, output: Path, name: object, about: About) -> None:
    """Writes the checkpoint that `source` holds to `output`; beside it a pipeline's autoencoder and text encoder.

    about: what is known besides what the files say. name: what the user called it, for messages. Raises
    CheckpointError for what is no network of ours.
    """
    if jax.process_count() > 1:  # where Orbax would wait for the other processes, each of which may be here or not
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, initializer=_alone) as pool:
            pool.submit(_convert_all, source, output, str(name), about).result()
    else:
        _convert_all(source, output, str(name), about)


def _alone() -> None:
    jax.config.update("jax_platforms", "cpu")


def _convert_all(source: Path, output: Path, name: str, about: About) -> None:
    from ledit_jax.convert.autoencoders import latents_space
    from ledit_jax.convert.files import open_tensors
    from ledit_jax.convert.read import convert_to_checkpoint

    about = _described(source, about)
    try:
        with _on_host():
            space = latents_space(open_tensors(source / "vae")) if has_weights(source / "vae") else None
            convert_to_checkpoint(source, output, space=space)
            for folder, beside in _BESIDE.items():
                if has_weights(source / folder):
                    convert_to_checkpoint(source / folder, output / beside)
                    about = dataclasses.replace(about, **{beside: beside})
    except OutputError:
        raise
    except LEDiTError as error:
        raise CheckpointError(f"{name} cannot be read: {error}") from error
    write_about(output, about)


def _described(source: Path, about: About) -> About:
    """With what the files say: of ours all, of diffusers' pipelines the names of the classes."""
    index, config = source / "model_index.json", source / "config.json"
    if config.is_file() and (said := read_json(config)).get("library_name") == LIBRARY:
        theirs = read_about(said, config)
        return dataclasses.replace(
            theirs, origin=theirs.origin or about.origin, license=theirs.license or about.license
        )
    if index.is_file() and (labels := read_json(index).get("id2label")):
        check_json(labels, f"{index}: id2label")
        count = 1 + max((int(key) for key in labels if key.isdecimal()), default=-1)
        if count > 100_000:
            raise CheckpointError(f"{index}: id2label has a class {count - 1}: download it again")
        names = tuple(str(labels.get(str(i), "")) for i in range(count))
        return dataclasses.replace(about, class_names=names)
    return about


def _on_host():
    """Arrays stay in the host's memory, where it is a device: an accelerator's is for the model."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()
