"""The settings of a network that is known by its tensors' names and shapes alone."""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ledit_jax.config import AutoencoderConfig, Config, DataConfig, ModelConfig, TrainConfig, model_preset
from ledit_jax.convert.dit import LAYOUTS, POSITIONS
from ledit_jax.convert.tables import Shapes
from ledit_jax.errors import CheckpointError, ConfigError

_DOWNSAMPLE = 8  # of the Stable Diffusion autoencoder, whose latents have four channels
_DEFAULT_LATENT_SIZE = 32


def dit_config(
    shapes: Shapes,
    layout: str,
    settings: Mapping[str, Any],
    name: str | None = None,
    num_heads: int | None = None,
    frequency_shift: float | None = None,
) -> Config:
    """The Config of a network that is known by its tensors' shapes alone.

    settings: diffusers' config.json, or nothing. name: a preset, such as "DiT-XL/2", that the file is said to hold.
    Without it a convolution makes a LEDiT of the default block order (LEDiT* has to be named), and anything else is a
    DiT. frequency_shift: of the timestep frequencies, by default that of whose code wrote the file. Raises ConfigError
    if the number of heads cannot be told, or the settings are those of another model.
    """
    is_ledit = layout == "dit" and "conv.weight" in shapes
    ledit = "LEDiT*" if name and name.startswith("LEDiT*") else "LEDiT"
    family = ledit if is_ledit else "NoPE" if name and name.startswith("NoPE") else "DiT"
    preset = model_preset(f"{family}-S/2")
    if layout == "diffusers":
        _check_settings(settings)
    in_channels, sizes = _sizes(shapes, layout)
    heads = num_heads or settings.get("num_attention_heads") or _preset_heads(sizes["width"])
    fields: dict[str, Any] = sizes | {"num_heads": heads}
    if is_ledit:
        depthwise = len(shapes["conv.weight"]) == 4 and shapes["conv.weight"][1] == 1
        fields |= dict(conv="depthwise" if depthwise else "dense", post_norm="conv_norm.weight" in shapes)
    if any(name.endswith("attn.q_norm.weight") for name in shapes):
        fields |= dict(qk_norm="rms")
    # diffusers' frequencies end one step earlier. Its norm_eps of 1e-5 is that of one norm in three, the others having
    # DiT's 1e-6; beside token variances near 1 the difference is below 1e-5 of the output.
    default_shift = 1.0 if layout == "diffusers" else 0.0
    fields |= dict(timestep_frequency_shift=default_shift if frequency_shift is None else frequency_shift)
    return _config(dataclasses.replace(preset, **fields), in_channels, _latent_size(shapes, layout, settings, sizes))


def _sizes(shapes: Shapes, layout: str) -> tuple[int, dict[str, Any]]:
    """Channels and ModelConfig's sizes. Several tensors vote on each, so that a damaged one is found out by name."""
    modules = LAYOUTS[layout]
    vote = functools.partial(most_voted, shapes, modules)
    width = vote(384, ("blocks.mlp.fc2", "bias", 0), ("blocks.attn.proj", "bias", 0), ("patch_embed", "bias", 0))
    hidden = vote(
        4 * width, ("blocks.mlp.fc1", "bias", 0), ("blocks.mlp.fc1", "weight", 0), ("blocks.mlp.fc2", "weight", 1)
    )
    sizes = {
        "depth": count_blocks(shapes, modules, "blocks.attn.proj"),
        "width": width,
        "patch_size": vote(2, ("patch_embed", "weight", 2), ("patch_embed", "weight", 3)),
        "mlp_ratio": hidden / width,
        "num_classes": vote(1001, ("label_embed", "weight", 0)) - 1,
    }
    return vote(4, ("patch_embed", "weight", 1)), sizes


def most_voted(
    shapes: Shapes, modules: Mapping[str, tuple[str, ...]], default: int, *axes: tuple[str, str, int]
) -> int:
    """The size that most tensors have along the axes (module of ours, "weight" or "bias", axis); default for none."""
    found: Counter[int] = Counter()
    for module, leaf, axis in axes:
        pattern = re.escape(f"{modules[module][0]}.{leaf}").replace(r"\{\}", r"\d+")
        matching = (shape for name, shape in shapes.items() if re.fullmatch(pattern, name))
        found.update(shape[axis] for shape in matching if len(shape) > axis)
    return found.most_common(1)[0][0] if found else default


def count_blocks(shapes: Shapes, modules: Mapping[str, tuple[str, ...]], module: str) -> int:
    """How many blocks there are by their names; `module` is in each of them."""
    prefix = modules[module][0].partition("{}")[0]
    blocks = (re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in shapes)
    return 1 + max((int(match[1]) for match in blocks if match), default=0)


def _preset_heads(width: int) -> int:
    for size in ("S", "B", "L", "XL"):
        preset = model_preset(f"DiT-{size}/2")
        if preset.width == width:
            return preset.num_heads
    raise ConfigError(f"shapes do not tell the number of heads, and no preset has width {width}: give num_heads")


def check_model(name: str, config: Config) -> None:
    """Raises ConfigError unless `config` has the family and sizes of the preset `name`."""
    preset = model_preset(name)
    for field in ("network", "depth", "width", "patch_size", "position", "conv", "post_norm"):
        wanted, found = getattr(preset, field), getattr(config.model, field)
        if wanted != found and {wanted, found} != {"dense", "depthwise"}:
            raise ConfigError(f"model={name} has {field}={wanted}, and the file {found}: leave model out")


def _check_settings(settings: Mapping[str, Any]) -> None:
    """What diffusers' class can be told to do and DiT does not."""
    needed = {"activation_fn": "gelu-approximate", "norm_type": "ada_norm_zero", "norm_elementwise_affine": False}
    for name, value in needed.items():
        if settings.get(name, value) != value:
            raise CheckpointError(f"config.json has {name}={settings[name]!r}, not {value!r}: this is no DiT")
    if settings.get("norm_eps", 1e-5) > 1e-5:
        raise CheckpointError(
            f"config.json has norm_eps={settings['norm_eps']}, and DiT's norms have 1e-6: this is no DiT"
        )


def _latent_size(shapes: Shapes, layout: str, settings: Mapping[str, Any], sizes: Mapping[str, int]) -> int:
    """Cells per side of the latents it was trained on: from the table's length, config.json, or DiT's default."""
    table = shapes.get(POSITIONS[layout], ())
    if len(table) == 3:
        return max(1, round(math.sqrt(table[1]))) * sizes["patch_size"]
    return settings.get("sample_size") or _DEFAULT_LATENT_SIZE


def _config(model: ModelConfig, in_channels: int, latent_size: int) -> Config:
    sd = in_channels == 4
    size = latent_size * (_DOWNSAMPLE if sd else 1)
    data = DataConfig(source="latents" if sd else "image_folder", image_height=size, image_width=size)
    config = Config(
        model=model,
        data=data if sd else dataclasses.replace(data, image_channels=in_channels),
        autoencoder=AutoencoderConfig(kind="sd" if sd else "none", downsample=_DOWNSAMPLE),
        train=TrainConfig(dilation_probability=0.1 if model.conv != "none" else 0.0),
    )
    return Config.from_dict(config.to_dict())  # which validates
