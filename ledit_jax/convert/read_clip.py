"""CLIP's text encoder, or both of its towers, from transformers' files to a checkpoint with the tokenizer in it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from ledit_jax.convert.clip import TEXT, clip_config, clip_table, extras, text_config, text_table
from ledit_jax.convert.files import StoredTensors
from ledit_jax.convert.rows import convert_rows
from ledit_jax.convert.tables import check_table, flatten_params, param_shapes
from ledit_jax.convert.tokenizer import check_tokenizer, find_tokenizer, read_vocabulary
from ledit_jax.errors import CheckpointError, DataError, LEDiTError
from ledit_jax.files import written_aside
from ledit_jax.files.readers import check_json
from ledit_jax.models.clip_text import CLIPText
from ledit_jax.models.clip_vision import CLIP
from ledit_jax.models.tokenizer import Vocabulary
from ledit_jax.weights import export_clip, export_text

_log = logging.getLogger(__name__)


def convert_clip(stored: StoredTensors, output: Path, kind: str, tokenizer: str | Path | None) -> None:
    """Writes a text encoder (kind "text") or both towers ("clip") as a checkpoint.

    tokenizer: the folder of its files, by default that of the weights, or a pipeline's. Raises CheckpointError, with
    nothing written, for weights that are not exactly such a network, and for a tokenizer that does not belong to it.
    """
    if kind == "vision":
        raise CheckpointError(f"input={stored.path} holds CLIP's image tower alone: give the file with both towers")
    dropped = extras(stored.shapes, kind)
    own = stored.without(dropped)
    settings = stored.description.get("settings") or stored.settings
    prefix = TEXT if any(name.startswith(TEXT) for name in own.shapes) else ""
    config = text_config(own.shapes, settings, prefix) if kind == "text" else clip_config(own.shapes, settings)
    module = CLIPText if kind == "text" else CLIP
    like = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: module(config, nnx.Rngs(0))), nnx.Param))
    shapes = param_shapes(flatten_params(like))
    table = text_table(shapes, prefix) if kind == "text" else clip_table(shapes, config.vision.patch_size)
    check_table(table, own.shapes, shapes)
    text = config if kind == "text" else config.text
    vocabulary = _vocabulary(stored, tokenizer)
    said = settings if kind == "text" else settings.get("text_config", {})
    check_tokenizer(vocabulary, text.vocab_size, said, stored.path)
    _log.info("%s is CLIP's %s: %s", stored.path, "text encoder" if kind == "text" else "two towers", config)
    if not settings:
        _log.info("no config.json lies beside it: heads of 64 and quick_gelu are taken, as OpenAI's networks have them")
    if dropped:
        _log.info("dropped %s", ", ".join(dropped))
    params = convert_rows(own, table, like)
    with written_aside(output) as aside:
        (export_text if kind == "text" else export_clip)(aside, params, config, vocabulary)


def _vocabulary(stored: StoredTensors, tokenizer: str | Path | None) -> Vocabulary:
    """From where the user says, or else from the file itself, if we wrote it, or from beside it."""
    values: Mapping[str, Any] | None = stored.description.get("tokenizer")
    if tokenizer or not values:
        path, _ = next(iter(stored.places.values()))
        return read_vocabulary(find_tokenizer(path, tokenizer))
    try:
        values = check_json(values, "tokenizer", fields={"vocab": dict, "merges": list, "padding": str})
        return Vocabulary(values["vocab"], values["merges"], values["padding"])
    except LEDiTError as error:
        raise DataError(f"{stored.path}: its description: {error}") from error
