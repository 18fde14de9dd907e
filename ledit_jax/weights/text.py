"""Checkpoints of a text encoder with its tokenizer, and of the whole of CLIP, which adds the image tower.

Items: `text` holds the encoder's arrays, `tokenizer` its vocabulary as JSON, and `vision`, in CLIP's, the image tower
with the projections. So a text encoder can be read from either.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from ledit_jax.config import TextConfig
from ledit_jax.config.parse import from_mapping
from ledit_jax.errors import CheckpointError, ConfigError, DataError
from ledit_jax.files.readers import check_json
from ledit_jax.models import Params
from ledit_jax.models.clip_text import CLIPText, CLIPTextConfig
from ledit_jax.models.clip_vision import CLIP, CLIPConfig, CLIPVisionConfig
from ledit_jax.models.text_encoder import CLIPTextEncoder
from ledit_jax.models.tokenizer import CLIPTokenizer, Vocabulary
from ledit_jax.models.words import Words
from ledit_jax.weights.checksums import array_checksums, digest, fingerprint
from ledit_jax.weights.found import find_checkpoint, kind_of
from ledit_jax.weights.items import placed, write_items
from ledit_jax.weights.stored import damaged, load_description, read_arrays, read_json


def export_text(folder: str | Path, params: Params, config: CLIPTextConfig, vocabulary: Vocabulary) -> None:
    """Writes a text encoder, a nested dict as its modules are named. Raises OutputError if `folder` exists."""
    _write(folder, {"text": params}, _describe_text(params, config, vocabulary), vocabulary)


def export_clip(folder: str | Path, params: Params, config: CLIPConfig, vocabulary: Vocabulary) -> None:
    """Writes both towers. Raises OutputError if `folder` exists."""
    arrays = {"text": params["text"], "vision": {name: params[name] for name in params if name != "text"}}
    description = _describe_text(params["text"], config.text, vocabulary)
    description |= {"vision": dataclasses.asdict(config.vision), "projection": config.projection}
    description["clip_id"] = digest([description["text_id"], description["vision"], fingerprint(arrays["vision"])])
    _write(folder, arrays, description, vocabulary)


def make_text_encoder(text: TextConfig) -> CLIPTextEncoder | Words:
    """The encoder that a model's prompts go through.

    Raises ConfigError where there is none, or its states are not the model's; CheckpointError as `load_text_encoder`.
    """
    if text.encoder == "words":
        return Words(text.length, text.width)
    if text.encoder != "clip":
        raise ConfigError(f"text.encoder={text.encoder}: this model takes no prompts")
    if not text.checkpoint:
        raise ConfigError("text.checkpoint is empty: give the checkpoint of CLIP's text encoder, see docs/porting.md")
    encoder = load_text_encoder(text.checkpoint)
    if (encoder.length, encoder.width) != (text.length, text.width):
        raise ConfigError(
            f"text.length={text.length} and text.width={text.width}, and the encoder of text.checkpoint="
            f"{text.checkpoint} makes {encoder.length} states of {encoder.width}: give the one of the model"
        )
    return encoder


def load_text_encoder(path: str | Path, batch_size: int | None = None) -> CLIPTextEncoder:
    """The encoder of a text encoder's checkpoint, or CLIP's. Raises CheckpointError as `load_weights` does.

    batch_size: prompts at a time on each device.
    """
    network, vocabulary, identity = load_text(path)
    return CLIPTextEncoder(network, CLIPTokenizer(vocabulary, network.config.length), identity, batch_size)


def text_fingerprint(path: str | Path) -> str:
    """Which encoder a checkpoint holds, without reading its weights; errors as `load_text_encoder`."""
    return _find(path, "text", "a text encoder")[1]["text_id"]


def load_text(path: str | Path) -> tuple[CLIPText, Vocabulary, str]:
    """(network, what its tokenizer knows, fingerprint of both); path and errors as for `load_text_encoder`."""
    folder, description = _find(path, "text", "a text encoder")
    config = _config(folder, CLIPTextConfig, description, "text")
    vocabulary = _load_vocabulary(folder, description)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: CLIPText(config, nnx.Rngs(0))), nnx.Param)
    network = nnx.merge(graphdef, read_arrays(folder / "text", placed(nnx.to_pure_dict(state))))
    return network, vocabulary, description["text_id"]


def load_clip(path: str | Path) -> tuple[CLIP, CLIPTokenizer, str]:
    """(both towers, their tokenizer, fingerprint) of CLIP's checkpoint. Raises CheckpointError as `load_weights`."""
    folder, description = _find(path, "vision", "CLIP")
    text = _config(folder, CLIPTextConfig, description, "text")
    vision = _config(folder, CLIPVisionConfig, description, "vision")
    config = CLIPConfig(text, vision, description["projection"])
    tokenizer = CLIPTokenizer(_load_vocabulary(folder, description), text.length)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: CLIP(config, nnx.Rngs(0))), nnx.Param)
    abstract = nnx.to_pure_dict(state)
    params = {"text": read_arrays(folder / "text", placed(abstract.pop("text")))}
    params |= read_arrays(folder / "vision", placed(abstract))
    return nnx.merge(graphdef, params), tokenizer, description["clip_id"]


def _load_vocabulary(folder: Path, description: Mapping[str, Any]) -> Vocabulary:
    """What the tokenizer in a step's folder knows. Raises CheckpointError where it is not what was written."""
    values = read_json(folder, "tokenizer", {"vocab": dict, "merges": list, "padding": str})
    vocabulary = Vocabulary(values["vocab"], values["merges"], values["padding"])
    if vocabulary.fingerprint != description["tokenizer_id"]:
        raise damaged(folder, DataError("its tokenizer is not as it was written"))
    return vocabulary


def _describe_text(params: Params, config: CLIPTextConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    settings = dataclasses.asdict(config)
    identity = digest([fingerprint(params), settings, vocabulary.fingerprint])
    return {"step": 0, "text": settings, "text_id": identity, "tokenizer_id": vocabulary.fingerprint}


def _write(folder: str | Path, arrays: dict[str, Params], description: dict[str, Any], vocabulary: Vocabulary) -> None:
    checksums = {name: array_checksums(params) for name, params in arrays.items()}
    texts = {"tokenizer": dataclasses.asdict(vocabulary)}
    write_items(folder, 0, arrays, description | {"checksums": checksums}, texts)


def _find(path: str | Path, item: str, wanted: str) -> tuple[Path, dict[str, Any]]:
    folder = find_checkpoint(path)
    if not (folder / item).is_dir():
        raise CheckpointError(
            f"checkpoint {folder} is {kind_of(folder)}'s, and {wanted}'s is needed: convert one, see docs/porting.md"
        )
    description = load_description(folder)
    fields = {"text_id": str, "tokenizer_id": str} | (
        {"clip_id": str, "vision": dict, "projection": int} if item == "vision" else {}
    )
    try:
        return folder, check_json(description, "its config", fields=fields)
    except DataError as error:
        raise damaged(folder, error) from error


def _config(folder: Path, kind: type, description: Mapping[str, Any], name: str) -> Any:
    try:
        return from_mapping(kind, description[name], prefix=f"{name}.")
    except ConfigError as error:
        raise CheckpointError(f"checkpoint {folder}: {error}") from error
