"""CLIP's towers by the names that transformers gives them: with the prefix `text_model.`, without it, or both towers.

Everything here works on names, shapes and settings; reading and writing files is the caller's.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ledit_jax.convert.tables import LINEAR, SAME, Row, Shapes, Table, patch_axes
from ledit_jax.errors import CheckpointError, ConfigError, ConversionError
from ledit_jax.files.readers import check_json
from ledit_jax.models.clip_layers import TowerConfig
from ledit_jax.models.clip_text import CLIPTextConfig
from ledit_jax.models.clip_vision import CLIPConfig, CLIPVisionConfig

TEXT, VISION = "text_model.", "vision_model."
_BUFFER = "embeddings.position_ids"  # 0, 1, 2 ...: in older files, and no parameter
# Our modules -> theirs, {} being the layer; several are joined.
_LAYER = {
    "norm1": ("layer_norm1",),
    "qkv": tuple(f"self_attn.{name}_proj" for name in "qkv"),
    "proj": ("self_attn.out_proj",),
    "norm2": ("layer_norm2",),
    "fc1": ("mlp.fc1",),
    "fc2": ("mlp.fc2",),
}
_ENDS = {
    "text": {"norm_out": "final_layer_norm"},
    "vision": {"norm_in": "pre_layrnorm", "norm_out": "post_layernorm", "patch_embed": "embeddings.patch_embedding"},
}
_WHOLE = {
    "text_projection.kernel": "text_projection.weight",
    "image_projection.kernel": "visual_projection.weight",
    "logit_scale": "logit_scale",
}
_ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def clip_kind(names: Iterable[str]) -> str | None:
    """What these names are: "text", "clip" (both towers), "vision" alone, or None for anything else."""
    bare = {name.removeprefix(TEXT) for name in names if not name.startswith(VISION)}
    has_vision = any(name.startswith(VISION) for name in names) or "embeddings.class_embedding" in bare
    if "embeddings.token_embedding.weight" not in bare:
        return "vision" if has_vision else None
    return "clip" if has_vision else "text"


def extras(names: Iterable[str], kind: str) -> list[str]:
    """Names of such a file that no parameter of ours is made of: buffers, and the projection of a text encoder."""
    dropped = {prefix + _BUFFER for prefix in ("", TEXT, VISION)}
    if kind == "text":
        dropped.add("text_projection.weight")
    return [name for name in names if name in dropped]


def text_table(shapes: Shapes, prefix: str) -> Table:
    """One row for each parameter of a `CLIPText`. shapes: of ours, by dotted path. prefix: `TEXT`, or nothing."""
    return tuple(_row(path, path, "text", prefix) for path in shapes)


def clip_table(shapes: Shapes, patch_size: int) -> Table:
    """One row for each parameter of a `CLIP`."""
    return tuple(_clip_row(path, patch_size) for path in shapes)


def _clip_row(path: str, patch_size: int) -> Row:
    if path in _WHOLE:
        return Row(path, ((_WHOLE[path],),), LINEAR if path.endswith("kernel") else SAME)
    tower, _, inner = path.partition(".")
    return _row(path, inner, tower, TEXT if tower == "text" else VISION, patch_size)


def _row(path: str, inner: str, tower: str, prefix: str, patch_size: int = 1) -> Row:
    """inner: the path within its tower."""
    if inner == "class_embedding":
        return Row(path, ((f"{prefix}embeddings.class_embedding",),))
    if inner.endswith("_embedding"):
        return Row(path, ((f"{prefix}embeddings.{inner}.weight",),))
    module, _, leaf = inner.rpartition(".")
    kind = "bias" if leaf == "bias" else "weight"
    if layer := re.fullmatch(r"tower\.layers\.(\d+)\.(\w+)", module):
        names = [f"encoder.layers.{layer[1]}.{theirs}" for theirs in _LAYER[layer[2]]]
    else:
        names = [_ENDS[tower][module]]
    axes = patch_axes(patch_size) if module == "patch_embed" else LINEAR if leaf == "kernel" else SAME
    return Row(path, (tuple(f"{prefix}{name}.{kind}" for name in names),), axes)


def text_config(shapes: Shapes, settings: Mapping[str, Any], prefix: str) -> CLIPTextConfig:
    """Sizes of the text tower whose names begin with `prefix`; settings: transformers', or nothing.

    Raises ConversionError where tensors that tell a size are missing, and CheckpointError for settings of a network
    that is no CLIP. Without settings it is one of OpenAI's, whose heads have 64 numbers.
    """
    sizes = _sizes(shapes, prefix, "token_embedding.weight")
    vocab_size, length = sizes.pop("first"), sizes.pop("places")
    defaults = {"num_attention_heads": 8} if settings else {"num_attention_heads": max(1, sizes["width"] // 64)}
    return _config(CLIPTextConfig, sizes | {"vocab_size": vocab_size, "length": length}, defaults | dict(settings))


def clip_config(shapes: Shapes, settings: Mapping[str, Any]) -> CLIPConfig:
    """Sizes of both towers, from settings with a section for each; errors as `text_config`."""
    check = {name: settings.get(name, {}) for name in ("text_config", "vision_config")}
    check_json(check, "config.json", fields=dict.fromkeys(check, dict))
    sizes = _sizes(shapes, VISION, "patch_embedding.weight")
    sizes.pop("first")
    places, patch = sizes.pop("places"), shapes[f"{VISION}embeddings.patch_embedding.weight"][-1]
    sizes |= {"patch_size": patch, "image_size": patch * round(max(0, places - 1) ** 0.5)}
    vision = check["vision_config"]
    defaults = {"num_attention_heads": 12} if vision else {"num_attention_heads": max(1, sizes["width"] // 64)}
    if "visual_projection.weight" not in shapes:
        raise ConversionError(missing=["visual_projection.weight"])
    return CLIPConfig(
        text_config(shapes, check["text_config"], TEXT),
        _config(CLIPVisionConfig, sizes, defaults | vision),
        shapes["visual_projection.weight"][0],
    )


def to_settings(config: TowerConfig | CLIPConfig) -> dict[str, Any]:
    """What no shape tells, as transformers' config.json has it: the inverse of the two above."""
    if isinstance(config, CLIPConfig):
        return {"text_config": to_settings(config.text), "vision_config": to_settings(config.vision)}
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    heads, eps = config.num_heads, config.norm_eps
    return {"num_attention_heads": heads, "hidden_act": names[config.activation], "layer_norm_eps": eps}


def _sizes(shapes: Shapes, prefix: str, first: str) -> dict[str, int]:
    """first: the embedding whose first side is wanted as well."""
    needed = [f"{prefix}{name}" for name in (f"embeddings.{first}", "embeddings.position_embedding.weight")]
    needed.append(f"{prefix}encoder.layers.0.mlp.fc1.weight")
    if missing := [name for name in needed if len(shapes.get(name, ())) < 2]:
        raise ConversionError(missing=missing)
    layers = [re.match(rf"{re.escape(prefix)}encoder\.layers\.(\d+)\.", name) for name in shapes]
    return {
        "first": shapes[needed[0]][0],
        "places": shapes[needed[1]][0],
        "width": shapes[needed[1]][1],
        "mlp_width": shapes[needed[2]][0],
        "depth": 1 + max(int(match[1]) for match in layers if match),
    }


def _config(kind: type, sizes: Mapping[str, int], settings: Mapping[str, Any]) -> Any:
    fields = {"num_attention_heads": int, "hidden_act": str, "layer_norm_eps": float}
    said = check_json(
        {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5} | dict(settings), "config.json", fields=fields
    )
    if said["hidden_act"] not in _ACTIVATIONS:
        raise CheckpointError(
            f"config.json has hidden_act={said['hidden_act']!r:.40}, and CLIP has one of {', '.join(_ACTIVATIONS)}"
        )
    try:
        return kind(
            **sizes,
            num_heads=said["num_attention_heads"],
            activation=_ACTIVATIONS[said["hidden_act"]],
            norm_eps=float(said["layer_norm_eps"]),
        )
    except ConfigError as error:
        raise CheckpointError(f"these are no weights of CLIP: {error}") from error
