"""Autoencoders of either network: from PyTorch's files, and to what diffusers reads."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from ledit_jax.config import AutoencoderConfig
from ledit_jax.config.parse import from_mapping
from ledit_jax.convert.dcae import dcae_config, dcae_settings, dcae_table, is_dcae
from ledit_jax.convert.files import StoredTensors
from ledit_jax.convert.rows import read_finite
from ledit_jax.convert.tables import apply_table, flatten_params, invert_table, param_shapes, unflatten_params
from ledit_jax.convert.vae import vae_config_from_shapes, vae_params_from_torch, vae_params_to_torch, vae_settings
from ledit_jax.errors import DataError
from ledit_jax.files.readers import check_json
from ledit_jax.models import Params
from ledit_jax.models.autoencoders import Autoencoder, AutoencoderSizes, abstract_vae
from ledit_jax.models.dcae_config import DCAEConfig
from ledit_jax.models.vae_config import VAEConfig

_log = logging.getLogger(__name__)
_IN_SD = "first_stage_model."  # what the autoencoder's names begin with in a whole Stable Diffusion checkpoint
_SD_SCALE = 0.18215


def is_autoencoder(stored: StoredTensors) -> bool:
    """By the names of its tensors, alone or in a whole Stable Diffusion checkpoint."""
    return any(name.removeprefix(_IN_SD).startswith("encoder.down") for name in stored.shapes)


def read_autoencoder(stored: StoredTensors) -> tuple[Params, AutoencoderSizes]:
    """(parameters, config), and logs what models of its latents have to say. Raises ConfigError for what is neither."""
    names = [name for name in stored.shapes if name.startswith(_IN_SD)] or list(stored.shapes)
    config, flat = (_read_dc if is_dcae(stored.shapes) else _read_kl)(stored, read_finite(stored, names))
    _log.info("%s is an autoencoder: %s", stored.path, config)
    said = latents_space(stored)
    if (scale := said.get("scale", _SD_SCALE)) != _SD_SCALE:
        _log.info("its latents are scaled by %s: models of them need autoencoder.scale=%s", scale, scale)
    if shift := said.get("shift"):
        _log.info("they are shifted by %s: autoencoder.latents_mean needs it for each of its channels", shift)
    for name in ("latent_channels", "downsample"):
        if (value := getattr(config, name)) != getattr(AutoencoderConfig(), name):
            _log.info("models of its latents need autoencoder.%s=%s", name, value)
    return unflatten_params(flat, nnx.to_pure_dict(abstract_vae(config)[1])), config


def to_diffusers(vae: Autoencoder) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors by diffusers' names, bit for bit; its config.json, but for the scaling factor)."""
    write = {VAEConfig: _write_kl, DCAEConfig: _write_dc}[type(vae.config)]
    return write(flatten_params(nnx.state(vae, nnx.Param)), vae.config)


def _read_kl(stored: StoredTensors, state: Mapping[str, np.ndarray]) -> tuple[VAEConfig, dict[str, np.ndarray]]:
    groups = _setting(stored, "norm_num_groups", int, 32)
    return vae_config_from_shapes(state, groups), vae_params_from_torch(state)


def _read_dc(stored: StoredTensors, state: Mapping[str, np.ndarray]) -> tuple[DCAEConfig, dict[str, np.ndarray]]:
    if own := stored.description.get("vae"):
        config = from_mapping(DCAEConfig, own)
    else:
        config = dcae_config(stored.settings, stored.path)
    shapes = param_shapes(flatten_params(abstract_vae(config)[1]))
    return config, apply_table(dcae_table(shapes), state, shapes)


def _write_kl(flat: Mapping[str, Any], config: VAEConfig) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return vae_params_to_torch(flat), vae_settings(config)


def _write_dc(flat: Mapping[str, Any], config: DCAEConfig) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return invert_table(dcae_table(param_shapes(flat)), flat), dcae_settings(config)


def latents_space(stored: StoredTensors) -> dict[str, float]:
    """What an autoencoder's files say of its latents, where they do: "scale", and a "shift" before it."""
    space = {}
    for name, said in {"scale": "scaling_factor", "shift": "shift_factor"}.items():
        value = _said(stored).get(said)
        if value is not None and value != 0:
            space[name] = float(_setting(stored, said, float, value))
    return space


def _setting(stored: StoredTensors, name: str, kind: type, default: Any) -> Any:
    """A number that the files say of the autoencoder; it is greater than 0."""
    values = _said(stored)
    if name not in values:
        return default
    if not 0 < check_json(values, f"{stored.path}: its settings", fields={name: kind})[name] <= 1e9:
        raise DataError(f"{stored.path}: {name}={values[name]} cannot be: download it again")
    return values[name]


def _said(stored: StoredTensors) -> Mapping[str, Any]:
    """config.json, or what a file of ours says in its place."""
    ours = stored.description
    values = check_json(ours.get("vae") or stored.settings, f"{stored.path}: its settings")
    return values | ({"scaling_factor": ours["scale"]} if "vae" in ours and "scale" in ours else {})
