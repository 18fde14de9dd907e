"""The settings of an MMDiT that is known by its tensors' names and shapes alone."""

import functools
import logging
import math
from collections.abc import Mapping
from typing import Any

from ledit_jax.config import (
    AutoencoderConfig,
    Config,
    DataConfig,
    DiffusionConfig,
    FlowConfig,
    SampleConfig,
    TextConfig,
    TrainConfig,
    model_preset,
)
from ledit_jax.convert.dit_config import count_blocks, most_voted
from ledit_jax.convert.mmdit import LAYOUTS, POSITIONS
from ledit_jax.convert.tables import Shapes
from ledit_jax.errors import CheckpointError

_log = logging.getLogger(__name__)
_HEAD_DIM = 32  # of REPA's, which has as many heads as blocks
_DOWNSAMPLE = 8
_DEFAULT_LATENT_SIZE = {"repa": 32, "sd3": 128}
_DIFFUSERS_TIME = 1000.0
"""diffusers' schedulers feed its network a thousand times the time."""


def mmdit_config(
    shapes: Shapes,
    layout: str,
    settings: Mapping[str, Any],
    name: str | None = None,
    num_heads: int | None = None,
    has_positions: bool = False,
) -> Config:
    """The Config of an MMDiT by its tensors' shapes, a flow as REPA and diffusers train it.

    settings: diffusers' config.json, or nothing. name: a preset that the file is said to hold. has_positions: whether
    the table in the file is not zero. A convolution makes a LEMMDiT; rotary positions, which leave no trace, have to
    be named. Logs what no tensor tells. Raises CheckpointError for settings of another network.
    """
    if layout == "sd3":
        _check_settings(settings)
    modules = LAYOUTS[layout]
    vote = functools.partial(most_voted, shapes, modules)
    width = vote(384, ("blocks.image.mlp.fc2", "bias", 0), ("blocks.image.attn.proj", "bias", 0))
    patch_size = vote(2, ("patch_embed", "weight", 2), ("patch_embed", "weight", 3))
    has_conv = layout == "repa" and "conv.weight" in shapes
    bare = "RoPE-MMDiT" if name and name.startswith("RoPE-") else "NoPE-MMDiT"
    family = "LEMMDiT" if has_conv else "MMDiT" if has_positions else bare
    fields: dict[str, Any] = {
        "depth": count_blocks(shapes, modules, "blocks.image.attn.proj"),
        "width": width,
        "num_heads": num_heads or settings.get("num_attention_heads") or max(1, width // _HEAD_DIM),
        "mlp_ratio": vote(4 * width, ("blocks.image.mlp.fc1", "bias", 0)) / width,
        "patch_size": patch_size,
    }
    if has_conv:
        depthwise = len(shapes["conv.weight"]) == 4 and shapes["conv.weight"][1] == 1
        fields |= dict(conv="depthwise" if depthwise else "dense", post_norm="conv_norm.weight" in shapes)
    if f"{modules['blocks.image.attn.q_norm'][0].format(0)}.weight" in shapes:
        fields["qk_norm"] = "rms"
    channels = vote(4, ("patch_embed", "weight", 1))
    is_sd = channels == 4
    size = _latent_size(shapes, layout, settings, patch_size) * (_DOWNSAMPLE if is_sd else 1)
    text_width = vote(768, ("text_embed", "weight", 1))
    source = DataConfig(source="latents" if is_sd else "image_folder", image_height=size, image_width=size)
    config = Config(
        model=model_preset(f"{family}-S/2", **fields),
        diffusion=DiffusionConfig(objective="flow"),
        flow=FlowConfig(time_scale=_DIFFUSERS_TIME if layout == "sd3" else 1.0),
        data=source if is_sd else DataConfig(**(vars(source) | {"image_channels": channels})),
        autoencoder=AutoencoderConfig(kind="sd" if is_sd else "none", downsample=_DOWNSAMPLE),
        text=TextConfig(encoder="clip", width=text_width),
        train=TrainConfig(dilation_probability=0.1 if has_conv else 0.0),
        sample=SampleConfig(sampler="euler", num_steps=50, cfg_scale=2.0, cfg_channels="all"),
    )
    _log.info(
        "no tensor says so: a flow with flow.time_scale=%g, %d heads, text of %d tokens",
        *(config.flow.time_scale, config.model.num_heads, config.text.length),
    )
    return Config.from_dict(config.to_dict())  # which validates


def _check_settings(settings: Mapping[str, Any]) -> None:
    """What diffusers' class can be told to do and REPA's network does not."""
    if settings.get("dual_attention_layers"):
        raise CheckpointError("config.json has dual_attention_layers, which are those of SD 3.5: this is no MMDiT")
    if settings.get("qk_norm") not in (None, "rms_norm"):
        raise CheckpointError(f"config.json has qk_norm={settings['qk_norm']!r}, and only rms_norm has a place here")


def _latent_size(shapes: Shapes, layout: str, settings: Mapping[str, Any], patch_size: int) -> int:
    """Cells per side of the latents it was trained on: from config.json, the table's length, or the code's default."""
    if settings.get("sample_size"):
        return settings["sample_size"]
    table = shapes.get(POSITIONS[layout], ())
    if len(table) == 3:
        return max(1, round(math.sqrt(table[1]))) * patch_size
    return _DEFAULT_LATENT_SIZE[layout]
