"""DC-AE, to and from the names and settings of diffusers' `AutoencoderDC`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ledit_jax.config.parse import from_mapping
from ledit_jax.convert.tables import CONV, LINEAR, SAME, Row, Shapes, Table
from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.files.readers import check_json
from ledit_jax.models.dcae_config import DCAEConfig

_SEGMENTS = {
    "encoder.levels": "encoder.down_blocks",
    "decoder.levels": "decoder.up_blocks",
    "attention.query": "attn.to_q",
    "attention.key": "attn.to_k",
    "attention.value": "attn.to_v",
    "attention.scales": "attn.to_qkv_multiscale",
    "attention.out": "attn.to_out",
    "attention.norm": "attn.norm_out",
    "mlp.expand": "conv_out.conv_inverted",
    "mlp.depthwise": "conv_out.conv_depth",
    "mlp.project": "conv_out.conv_point",
    "mlp.norm": "conv_out.norm",
    "depthwise": "proj_in",
    "grouped": "proj_out",
    "kernel": "weight",
    "scale": "weight",
}
"""Of a dotted path, ours -> theirs, applied in order."""
_SIZES = {
    "in_channels": "image_channels",
    "latent_channels": "latent_channels",
    "encoder_block_out_channels": "block_out_channels",
    "encoder_layers_per_block": "encoder_layers",
    "decoder_layers_per_block": "decoder_layers",
    "attention_head_dim": "head_dim",
}
_OTHERS = ("encoder_block_types", "encoder_qkv_multiscales", "downsample_block_type")
_FIELDS = dict.fromkeys((*_SIZES, *_OTHERS), object) | {"scaling_factor": float}


def is_dcae(shapes: Shapes) -> bool:
    """Whether tensors by these names are a DC-AE's, whose levels have no `resnets` in between."""
    return any(name.startswith("encoder.down_blocks.0.0.") for name in shapes)


def dcae_table(shapes: Shapes) -> Table:
    """One row for each of our parameters; shapes: of those, by dotted path."""
    return tuple(_row(path, len(shape)) for path, shape in shapes.items())


def _row(path: str, rank: int) -> Row:
    name = f".{path}."
    for ours, theirs in _SEGMENTS.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return Row(path, ((name.strip("."),),), {1: SAME, 2: LINEAR, 4: CONV}[rank])


def dcae_config(settings: Mapping[str, Any], path: str | Path) -> DCAEConfig:
    """Sizes as diffusers' config.json has them.

    Raises CheckpointError or DataError, naming the file and the setting, for what our network does not compute.
    """
    if not settings:
        raise CheckpointError(
            f"{path} is a DC-AE, and the config.json that says its sizes is not there: convert the folder of diffusers "
            "that it came in"
        )
    check_json(settings, f"{path}: its config.json", fields=_FIELDS)
    blocks, scales = settings["encoder_block_types"], settings["encoder_qkv_multiscales"]
    sizes = {ours: settings[theirs] for theirs, ours in _SIZES.items()}
    sizes["attention_levels"] = blocks.count("EfficientViTBlock") if isinstance(blocks, list) else 0
    sizes["scales"] = scales[-1] if isinstance(scales, list) and scales else []
    sizes["folds"] = settings["downsample_block_type"] == "pixel_unshuffle"
    try:
        config = from_mapping(DCAEConfig, sizes)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its config.json: {error}") from error
    for name, ours in dcae_settings(config).items():
        said = settings.get(name, ours)
        given = [said] * len(ours) if isinstance(ours, list) and isinstance(said, str) else said
        if given != ours:
            raise CheckpointError(f"{path}: {name}={said!r:.200} is not supported: it has to be {ours!r}")
    return config


def dcae_settings(config: DCAEConfig) -> dict[str, Any]:
    """diffusers' config.json, but for the scaling factor."""
    widths, scales = list(config.block_out_channels), list(config.scales)
    plain = len(widths) - config.attention_levels
    kinds = ["ResBlock"] * plain + ["EfficientViTBlock"] * config.attention_levels
    multiscales = [[]] * plain + [scales] * config.attention_levels
    return {
        "_class_name": "AutoencoderDC",
        "in_channels": config.image_channels,
        "latent_channels": config.latent_channels,
        "attention_head_dim": config.head_dim,
        **{f"{half}_block_types": kinds for half in ("encoder", "decoder")},
        **{f"{half}_block_out_channels": widths for half in ("encoder", "decoder")},
        "encoder_layers_per_block": list(config.encoder_layers),
        "decoder_layers_per_block": list(config.decoder_layers),
        **{f"{half}_qkv_multiscales": multiscales for half in ("encoder", "decoder")},
        "downsample_block_type": "pixel_unshuffle" if config.folds else "Conv",
        "upsample_block_type": "pixel_shuffle" if config.folds else "interpolate",
        "decoder_norm_types": ["rms_norm"] * len(widths),
        "decoder_act_fns": ["silu"] * len(widths),
        "encoder_out_shortcut": True,
        "decoder_in_shortcut": True,
        "decoder_conv_act_fn": "relu",
    }
