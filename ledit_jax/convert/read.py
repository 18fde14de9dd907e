"""From PyTorch's files to checkpoints of ours: recognises what a file holds, checks all, converts piece by piece."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ledit_jax.config import Config
from ledit_jax.convert.autoencoders import is_autoencoder, latents_space, read_autoencoder
from ledit_jax.convert.clip import clip_kind
from ledit_jax.convert.dit import (
    check_positions,
    dit_layout,
    dit_table,
    embedder_copies,
    output_features,
    position_shapes,
    position_table,
)
from ledit_jax.convert.dit_config import check_model, dit_config
from ledit_jax.convert.files import StoredTensors, naming, open_tensors
from ledit_jax.convert.mmdit import mmdit_layout
from ledit_jax.convert.objective import read_objective, without_projectors
from ledit_jax.convert.output import check_output
from ledit_jax.convert.read_clip import convert_clip
from ledit_jax.convert.read_mmdit import read_mmdit
from ledit_jax.convert.rows import convert_rows, read_description
from ledit_jax.convert.tables import check_table, flatten_params, param_shapes
from ledit_jax.diffusion import make_process
from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.files import written_aside
from ledit_jax.models import Params, abstract_params, make_network
from ledit_jax.weights import export_vae, export_weights

_log = logging.getLogger(__name__)


def convert_to_checkpoint(
    source: str | Path,
    output: str | Path,
    *,
    model: str | None = None,
    num_heads: int | None = None,
    weights: str = "ema",
    frequency_shift: float | None = None,
    objective: str | None = None,
    tokenizer: str | Path | None = None,
    overwrite: bool = False,
    space: Mapping[str, float] | None = None,
) -> None:
    """Writes what a PyTorch file or a folder holds, DiT, LEDiT, MMDiT, autoencoder or CLIP, as a checkpoint of ours.

    model: a preset that the file has to be, such as "DiT-XL/2" or "SiT-XL/2". objective: "noise" or "flow", which no
    tensor tells; by default as the model's or the file's name says, see `read_objective`. num_heads: where no preset
    has the file's width. weights: "ema" or "model", of a training file. frequency_shift:
    `model.timestep_frequency_shift` of a DiT, by default 0 for DiT's own files and 1 for diffusers', as the code that
    goes with them computes. space: what the autoencoder of a pipeline says of its latents, see `latents_space`. Logs
    what it recognised. Raises ConfigError, with `output` untouched, for whatever is not
    exactly one of these networks.
    """
    output = Path(output)
    check_output(output, overwrite, source, makes_file=False)
    stored = open_tensors(source)
    if any(name.startswith("state_dict.") for name in stored.shapes):  # Lightning's wrapping
        stored = stored.under("state_dict.")
    kind = clip_kind(stored.shapes)
    is_vae = is_autoencoder(stored)
    if tokenizer and not kind:
        raise ConfigError(f"input={source} is no text encoder, and tokenizer is for one")
    if not is_vae and not kind:
        with naming(source):
            params, config, step = _read_model(stored, model, num_heads, weights, frequency_shift, objective)
            config = _in_space(config, space or {})
        with written_aside(output) as aside:
            export_weights(aside, params, config, step)
    elif model or num_heads or objective or frequency_shift is not None:
        raise ConfigError(
            f"input={source} is {'CLIP' if kind else 'an autoencoder'}, and model, num_heads, objective and "
            "timestep_frequency_shift are for a DiT"
        )
    elif kind:
        with naming(source):
            convert_clip(stored, output, kind, tokenizer)
    else:
        with naming(source):
            vae_params, vae_config = read_autoencoder(stored)
            scale = latents_space(stored).get("scale")
        with written_aside(output) as aside:
            export_vae(aside, vae_params, vae_config, scale)


def _in_space(config: Config, space: Mapping[str, float]) -> Config:
    """A model's config, of these latents."""
    if config.autoencoder.kind == "none":
        return config
    fields = {"scale": space["scale"]} if "scale" in space else {}
    if "shift" in space:
        fields["latents_mean"] = (space["shift"],) * config.autoencoder.latent_channels
    return config.replaced("autoencoder", **fields)


def _read_model(
    stored: StoredTensors,
    model: str | None,
    num_heads: int | None,
    weights: str,
    frequency_shift: float | None,
    objective: str | None,
) -> tuple[Params, Config, int]:
    whole, origin = _select(stored, weights)
    stored = without_projectors(whole)
    if text_layout := mmdit_layout(stored.shapes):
        if frequency_shift is not None:
            raise ConfigError(f"input={stored.path} is an MMDiT, and timestep_frequency_shift is for a DiT")
        return read_mmdit(stored, text_layout, origin, model, num_heads, objective)
    layout = dit_layout(stored.shapes)
    if layout is None:
        raise CheckpointError(
            f"input={stored.path} holds no DiT, LEDiT, MMDiT, Stable Diffusion autoencoder or CLIP: its "
            f"{len(stored.shapes)} tensors are named {', '.join(list(stored.shapes)[:3]) or 'nothing'}"
        )
    copies = embedder_copies(stored.shapes) if layout == "diffusers" else {}
    own = stored.without(copies)
    config, step = read_description(stored)
    if config is None:
        config = dit_config(own.shapes, layout, stored.settings, model, num_heads, frequency_shift)
        config = read_objective(whole, config, output_features(own.shapes, layout), model, objective)
    elif frequency_shift is not None:
        config = config.replaced("model", timestep_frequency_shift=frequency_shift)
    if model:
        check_model(model, config)
    like = abstract_params(make_network(config, make_process(config)))
    shapes = param_shapes(flatten_params(like))
    table = dit_table(shapes, layout, config.model.patch_size, config.flow.convention)
    constants = position_shapes(config, own.shapes, layout)
    check_table(table, own.shapes, shapes, constants)
    _check_copies(stored, copies)
    for position in own.read(constants).values():
        check_positions(position, config)
    _log.info("%s is a %s", stored.path, _describe(config, layout, origin))
    _log_frequencies(config, layout)
    return convert_rows(own, table, like), config, step


def _select(stored: StoredTensors, weights: str) -> tuple[StoredTensors, str]:
    """The tensors that are asked for, and where they come from."""
    held = [name for name in ("ema", "model") if any(key.startswith(f"{name}.") for key in stored.shapes)]
    if not held:
        return stored, "state dict"
    if weights not in held:
        raise ConfigError(f"weights={weights}, and the training file {stored.path} holds only {', '.join(held)}")
    return stored.under(f"{weights}."), f"training file, its weights {weights!r}"


def _describe(config: Config, layout: str, origin: str) -> str:
    model = config.model
    family = "LEDiT" if model.conv != "none" else "NoPE DiT" if position_table(config) is None else "DiT"
    origin = "of diffusers" if layout == "diffusers" else origin
    size = f"{config.data.image_height}x{config.data.image_width}"
    return (
        f"{family} ({origin}): depth {model.depth}, width {model.width}, {model.num_heads} heads, patch "
        f"{model.patch_size}, {model.num_classes} classes, {config.in_channels} channels, trained at {size}"
    )


def _log_frequencies(config: Config, layout: str) -> None:
    if layout == "diffusers":
        _log.info(
            "timestep_frequency_shift=%g: 1 is what diffusers computes, 0 what DiT's weights were trained with",
            config.model.timestep_frequency_shift,
        )


def _check_copies(stored: StoredTensors, copies: Mapping[str, str]) -> None:
    for copy, original in copies.items():
        arrays = stored.read([copy, original])
        if not np.array_equal(arrays[copy], arrays[original]):
            raise CheckpointError(f"{copy} differs from that of block 0: a DiT has one embedder for all of its blocks")
