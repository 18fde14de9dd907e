"""From checkpoints of ours to PyTorch's files, by the names of facebookresearch/DiT, REPA (MMDiT), diffusers
(autoencoders) or transformers (CLIP)."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from ledit_jax.config import Config
from ledit_jax.convert.autoencoders import to_diffusers
from ledit_jax.convert.clip import TEXT, clip_table, text_table, to_settings
from ledit_jax.convert.dit import dit_table, position_shapes, position_table
from ledit_jax.convert.files import write_tensors
from ledit_jax.convert.mmdit import POSITIONS, mmdit_table
from ledit_jax.convert.output import check_output
from ledit_jax.convert.tables import flatten_params, invert_table, param_shapes
from ledit_jax.errors import OutputError
from ledit_jax.files import written_aside
from ledit_jax.models import Params
from ledit_jax.models.clip_vision import CLIP
from ledit_jax.models.condition import EMPTY_CAPTION
from ledit_jax.weights import describe, find_checkpoint, kind_of, load_description, load_vae, load_weights
from ledit_jax.weights.text import load_clip, load_text

_log = logging.getLogger(__name__)
_SUFFIXES = (".pt", ".safetensors")


def convert_to_torch(source: str | Path, output: str | Path, *, weights: str = "ema", overwrite: bool = False) -> None:
    """Writes a checkpoint of ours as a PyTorch state dict (.pt) or as .safetensors, float32 and bit for bit.

    weights: "ema", or "model" for the raw ones of a training run. The config travels in the file's metadata, so that
    `convert_to_checkpoint` gives back what it came from. Raises ConfigError, or CheckpointError for the source.
    """
    output = Path(output)
    if output.suffix not in _SUFFIXES:
        raise OutputError(f"output={output} must end in {' or '.join(_SUFFIXES)}")
    check_output(output, overwrite, source, makes_file=True)
    folder = find_checkpoint(source)
    if (folder / "text").is_dir():
        state, description = _clip_state(folder)
        _log.info("%s is %s", folder, kind_of(folder))
    elif (folder / "vae").is_dir():
        description = load_description(folder)
        state, _ = to_diffusers(load_vae(folder))
        _log.info("%s is an autoencoder", folder)
    else:
        params, config, step = load_weights(folder, {"ema": "ema", "model": "params"}[weights])
        description = describe(config, step)
        is_text = config.model.network == "mmdit"
        state = mmdit_state(params, config) if is_text else dit_state(params, config)
        _log.info("%s is a model of step %d, its weights %r", folder, step, weights)
        if config.model.timestep_frequency_shift:
            _log.info("it has diffusers' timestep frequencies: DiT's own code would read it with others")
    with written_aside(output) as aside:
        write_tensors(aside, state, description)


def dit_state(params: Params, config: Config) -> dict[str, np.ndarray]:
    """A network's parameters under DiT's names, with the sin/cos table where the model has one."""
    flat = flatten_params(params)
    state = {name: position_table(config) for name in position_shapes(config, {}, "dit")}
    for row in dit_table(param_shapes(flat), "dit", config.model.patch_size, config.flow.convention):
        tensors = row.split(np.asarray(flat[row.path]))
        state.update((name, np.ascontiguousarray(tensor)) for name, tensor in tensors.items())
    return state


def mmdit_state(params: Params, config: Config, layout: str = "repa") -> dict[str, np.ndarray]:
    """A network's parameters under REPA's names, or diffusers', with the sin/cos table where the model has one.

    An empty caption that is not known, and so zero, is left out.
    """
    flat = {path: leaf for path, leaf in flatten_params(params).items() if path != EMPTY_CAPTION or np.any(leaf)}
    table = position_table(config)
    positions = {} if table is None else {POSITIONS[layout]: table}
    return positions | invert_table(mmdit_table(param_shapes(flat), layout, config.model.patch_size), flat)


def _clip_state(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A text encoder's parameters, or those of both towers, under transformers' names; and the description."""
    if (folder / "vision").is_dir():
        network, tokenizer, _ = load_clip(folder)
        vocabulary = tokenizer.vocabulary
    else:
        network, vocabulary, _ = load_text(folder)
    params = flatten_params(nnx.state(network, nnx.Param))
    shapes = param_shapes(params)
    if isinstance(network, CLIP):
        table = clip_table(shapes, network.config.vision.patch_size)
    else:
        table = text_table(shapes, TEXT)
    description = {"settings": to_settings(network.config), "tokenizer": dataclasses.asdict(vocabulary)}
    return invert_table(table, params), description
