"""A pipeline as a folder that `from_pretrained` reads, and that a hub's upload command takes as it is."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ledit_jax.config import Config
from ledit_jax.errors import ConfigError, ConversionError, OutputError
from ledit_jax.files import as_place, written_aside
from ledit_jax.hub.contents import LIBRARY
from ledit_jax.models import Params
from ledit_jax.models.autoencoders import Autoencoder
from ledit_jax.weights import describe
from ledit_jax.weights.about import About

_WEIGHTS = "model.safetensors"


def save_pretrained(
    folder: str | Path,
    params: Params,
    config: Config,
    *,
    step: int = 0,
    about: About | None = None,
    vae: Autoencoder | None = None,
) -> None:
    """Writes config.json, model.safetensors by PyTorch's names, README.md, and the autoencoder as diffusers has it.

    about: class names, origin and licence; where its `autoencoder` names a model of the hub, that is referred to and
    `vae` not written. Raises OutputError for a folder that is there or cannot be written, and ConfigError for a network
    that has no names in such files.
    """
    folder, about = as_place(folder), about or About()
    if folder.exists():
        raise OutputError(f"{folder} exists already: choose another place or remove it first")
    is_referred = about.autoencoder.startswith("hf://")
    about = dataclasses.replace(about, autoencoder=about.autoencoder if is_referred else "")
    if not about.text_encoder.startswith("hf://"):
        about = dataclasses.replace(about, text_encoder="")
    state = _state(params, config)
    with written_aside(folder) as aside:
        aside.mkdir()
        settings = {"library_name": LIBRARY, "step": step, "config": config.to_dict()} | dataclasses.asdict(about)
        _write(aside, settings, _WEIGHTS, state, describe(config, step))
        if vae is not None and not is_referred:
            _write_vae(aside / "vae", vae, config)
        (aside / "README.md").write_text(_card(config, about, step), encoding="utf-8")


def _state(params: Params, config: Config) -> dict[str, np.ndarray]:
    from ledit_jax.convert.write import dit_state, mmdit_state

    try:
        return mmdit_state(params, config) if config.model.network == "mmdit" else dit_state(params, config)
    except ConversionError as error:
        model = config.model
        raise ConfigError(
            f"model.position={model.position} with model.block={model.block} has no names in PyTorch's files "
            f"({', '.join(error.unmapped[:3])}): share its checkpoint's folder as it is"
        ) from error


def _write(folder: Path, settings: Mapping[str, Any], name: str, state: Mapping[str, Any], description: Any) -> None:
    from ledit_jax.convert.files import write_tensors

    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    write_tensors(folder / name, state, description)


def _write_vae(folder: Path, vae: Autoencoder, config: Config) -> None:
    """As diffusers' `from_pretrained` takes it."""
    from ledit_jax.convert.autoencoders import to_diffusers

    state, settings = to_diffusers(vae)
    settings |= {"scaling_factor": config.autoencoder.scale}
    if len(shift := set(config.autoencoder.latents_mean)) == 1:  # diffusers knows one for all channels
        settings["shift_factor"] = shift.pop()
    folder.mkdir()
    _write(folder, settings, "diffusion_pytorch_model.safetensors", state, {})


def _card(config: Config, about: About, step: int) -> str:
    """README.md: what a hub reads in its head, and what people read."""
    is_text, data = config.model.network == "mmdit", config.data
    task = "text-to-image" if is_text else "unconditional-image-generation"
    asked = '"a red bus"' if is_text else "0"
    head = [f"library_name: {LIBRARY}", f"pipeline_tag: {task}", "tags:", "- diffusion", "- jax"]
    head += [f"license: {about.license}"] if about.license else []
    terms = "The licence is yours to choose: write it above, as `license:`."
    if about.license:
        terms = f"Weights: {about.license}" + (", of the weights that they come from." if about.origin else ".")
    if about.license.startswith("cc-by-nc"):
        terms += " No commercial use."
    return "\n".join(
        [
            "---",
            *head,
            "---",
            "",
            f"# {'Text to image' if is_text else 'Images by class'}, {data.image_height}x{data.image_width}",
            "",
            f"A diffusion transformer of ledit_jax: depth {config.model.depth}, width {config.model.width}, "
            f"{config.model.num_heads} heads, patch {config.model.patch_size}, positions {config.model.position}, "
            f"{config.diffusion.objective}, step {step}." + (f" From {about.origin}." if about.origin else ""),
            "",
            "```python",
            "from ledit_jax import LEDiTPipeline",
            "",
            'pipe = LEDiTPipeline.from_pretrained("ORG/NAME")  # or this folder',
            f"images = pipe([{asked}], height={data.image_height}, width={data.image_width})",
            "```",
            "",
            terms,
            "",
        ]
    )
