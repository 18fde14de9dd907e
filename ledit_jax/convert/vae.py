"""Stable Diffusion's autoencoder, to and from PyTorch's names: diffusers' (new and old) and the original CompVis ones.

States are mappings from torch names to NumPy arrays; reading and writing files is the caller's.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ledit_jax.convert.tables import (
    CONV,
    LINEAR,
    POINTWISE,
    SAME,
    Row,
    Shapes,
    Table,
    apply_table,
    flatten_params,
    invert_table,
    param_shapes,
)
from ledit_jax.errors import ConversionError
from ledit_jax.models.autoencoders import abstract_vae
from ledit_jax.models.vae_config import VAEConfig

# Our segments of a dotted path -> theirs, applied in order.
_DIFFUSERS = {f"attentions.{i}.norm": f"attentions.{i}.group_norm" for i in range(8)} | {
    "encoder.levels": "encoder.down_blocks",
    "decoder.levels": "decoder.up_blocks",
    "attention.norm": "attention.group_norm",
    "mid.attention": "mid_block.attentions.0",
    "mid.block1": "mid_block.resnets.0",
    "mid.block2": "mid_block.resnets.1",
    "blocks": "resnets",
    "shortcut": "conv_shortcut",
    "downsample": "downsamplers.0.conv",
    "upsample": "upsamplers.0.conv",
    "norm_out": "conv_norm_out",
    "kernel": "weight",
    "scale": "weight",
}
_COMPVIS = {
    "attentions": "attn",
    "encoder.levels": "encoder.down",
    "decoder.levels": "decoder.up",
    "mid.attention": "mid.attn_1",
    "mid.block1": "mid.block_1",
    "mid.block2": "mid.block_2",
    "blocks": "block",
    "shortcut": "nin_shortcut",
    "downsample": "downsample.conv",
    "upsample": "upsample.conv",
    "query": "q",
    "key": "k",
    "value": "v",
    "out": "proj_out",
    "kernel": "weight",
    "scale": "weight",
}
_LAYOUTS = {
    "diffusers": _DIFFUSERS | {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"},
    "diffusers_old": _DIFFUSERS | {"out": "proj_attn"},
    "compvis": _COMPVIS,
}
# Within a whole Stable Diffusion checkpoint, and the training losses' own networks in an autoencoder's.
_COMPVIS_PREFIX = "first_stage_model."
_COMPVIS_LOSSES = ("loss.", "foundation_model.", "linear_proj.")
"""Also what VA-VAE aligns its latents with."""


def vae_table(shapes: Shapes, layout: str) -> Table:
    """One row for each of our parameters; layout is "diffusers", "diffusers_old" or "compvis".

    shapes: of our parameters by dotted path.
    """
    levels = 1 + max(int(path.split(".")[2]) for path in shapes if path.startswith("decoder.levels."))
    return tuple(_row(path, len(shape), layout, levels) for path, shape in shapes.items())


def _row(path: str, rank: int, layout: str, levels: int) -> Row:
    name = f".{path}."
    for ours, theirs in _LAYOUTS[layout].items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    if layout == "compvis":  # its decoder counts levels from full resolution, and runs them backwards
        name = re.sub(r"(?<=decoder\.up\.)\d+", lambda level: str(levels - 1 - int(level[0])), name)
    linear = POINTWISE if layout == "compvis" else LINEAR
    return Row(path, ((name.strip("."),),), {1: SAME, 2: linear, 4: CONV}[rank])


def vae_config_from_shapes(state: Mapping[str, Any], norm_num_groups: int = 32) -> VAEConfig:
    """Sizes of the autoencoder in `state` (arrays, or anything with a shape), of any of the layouts.

    The groups of the norms leave no trace in shapes; 32 is right for every public checkpoint of this family. Raises
    ConversionError where `state` holds no such autoencoder.
    """
    return _config(*_autoencoder(param_shapes(state)), norm_num_groups)


def vae_params_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our flat parameters from a state of any of the layouts, or from a whole Stable Diffusion checkpoint.

    `ledit_jax.convert.tables.unflatten_params` puts them in a model. Raises ConversionError with every missing,
    unmapped and wrong-shaped name, before anything is converted.
    """
    shapes, layout = _autoencoder(param_shapes(state))
    table_shapes = vae_param_shapes(_config(shapes, layout, norm_num_groups=1))  # groups change no shape
    prefix = _prefix(state)
    return apply_table(vae_table(table_shapes, layout), {n: state[prefix + n] for n in shapes}, table_shapes)


def vae_params_to_torch(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our flat parameters -> diffusers' names (the new ones), bit for bit."""
    return invert_table(vae_table(param_shapes(params), "diffusers"), params)


def vae_settings(config: VAEConfig) -> dict[str, Any]:
    """diffusers' config.json, but for the scaling factor."""
    levels, attends = len(config.block_out_channels), "Attn" if config.level_attention else ""
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": config.image_channels,
        "out_channels": config.image_channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.norm_num_groups,
        "down_block_types": ["DownEncoderBlock2D"] * (levels - 1) + [f"{attends}DownEncoderBlock2D"],
        "up_block_types": [f"{attends}UpDecoderBlock2D"] + ["UpDecoderBlock2D"] * (levels - 1),
        "use_quant_conv": config.quant_convs,
        "use_post_quant_conv": config.quant_convs,
    }


def vae_param_shapes(config: VAEConfig) -> Shapes:
    """Shapes of our parameters by dotted path; allocates nothing."""
    return param_shapes(flatten_params(abstract_vae(config)[1]))


def _prefix(names: Iterable[str]) -> str:
    return _COMPVIS_PREFIX if any(name.startswith(_COMPVIS_PREFIX) for name in names) else ""


def _autoencoder(shapes: Shapes) -> tuple[Shapes, str]:
    """The autoencoder's own names, without the prefix, and their layout."""
    prefix = _prefix(shapes)
    shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    if any(name.startswith("encoder.down_blocks.") for name in shapes):
        old = any(re.search(r"\.attentions\.0\.(query|key|value|proj_attn)\.", name) for name in shapes)
        return shapes, "diffusers_old" if old else "diffusers"
    if any(name.startswith("encoder.down.") for name in shapes):
        return {name: shape for name, shape in shapes.items() if not name.startswith(_COMPVIS_LOSSES)}, "compvis"
    raise ConversionError(missing=["encoder.down_blocks.* (diffusers)", "encoder.down.* (CompVis)"])


def _config(shapes: Shapes, layout: str, norm_num_groups: int) -> VAEConfig:
    """Reads each size off several tensors and takes the majority, so that a damaged one is found out later, by name."""
    level, block = _LAYOUTS[layout]["encoder.levels"], _LAYOUTS[layout]["blocks"]

    def out_channels(*modules: str) -> int:
        names = [f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")]
        sizes = Counter(shapes[name][0] for name in names if shapes.get(name))
        if not sizes:
            raise ConversionError(missing=names)
        return sizes.most_common(1)[0][0]

    matches = [re.match(rf"{re.escape(level)}\.(\d+)\.{block}\.(\d+)\.", name) for name in shapes]
    indices = [(int(match[1]), int(match[2])) for match in matches if match]
    num_levels, layers = (1 + max((pair[i] for pair in indices), default=0) for i in (0, 1))
    blocks = [[f"{level}.{i}.{block}.{j}" for j in range(layers)] for i in range(num_levels)]
    return VAEConfig(
        image_channels=out_channels("decoder.conv_out"),
        latent_channels=_latent_channels(shapes),
        block_out_channels=tuple(
            out_channels(*(f"{name}.{conv}" for name in names for conv in ("conv1", "conv2"))) for names in blocks
        ),
        layers_per_block=layers,
        norm_num_groups=norm_num_groups,
        quant_convs=any(name.startswith("post_quant_conv.") for name in shapes),
        level_attention=any(re.match(rf"{re.escape(level)}\.{num_levels - 1}\.att", name) for name in shapes),
    )


def _latent_channels(shapes: Shapes) -> int:
    """Of most of the tensors that tell."""
    places = {"post_quant_conv.weight": 0, "post_quant_conv.bias": 0, "decoder.conv_in.weight": 1}
    sizes = Counter(shapes[name][place] for name, place in places.items() if len(shapes.get(name, ())) > place)
    if not sizes:
        raise ConversionError(missing=list(places))
    return sizes.most_common(1)[0][0]
