"""An MMDiT of ours as diffusers' SD3Transformer2DModel, for `from_pretrained`."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ledit_jax.config import Config
from ledit_jax.convert.files import write_tensors
from ledit_jax.convert.mmdit import POOLED, POSITIONS
from ledit_jax.convert.output import check_output
from ledit_jax.convert.write import mmdit_state
from ledit_jax.errors import ConfigError
from ledit_jax.files import written_aside
from ledit_jax.weights import describe, find_checkpoint, load_weights

_log = logging.getLogger(__name__)
_FILE = "diffusion_pytorch_model.safetensors"


def convert_to_diffusers(
    source: str | Path, output: str | Path, *, weights: str = "ema", overwrite: bool = False
) -> None:
    """Writes a folder with config.json and one .safetensors, float32 and bit for bit; weights as `convert_to_torch`.

    Its embedding of pooled text is zero. Raises ConfigError for a network that this class of diffusers' is not.
    """
    output = Path(output)
    check_output(output, overwrite, source, makes_file=False)
    folder = find_checkpoint(source)
    params, config, step = load_weights(folder, {"ema": "ema", "model": "params"}[weights])
    _check(config)
    state = mmdit_state(params, config, "sd3")
    tokens, width = config.num_tokens(), config.model.width
    state.setdefault(POSITIONS["sd3"], np.zeros((1, tokens, width), np.float32))
    for linear, features in (("linear_1", config.text.width), ("linear_2", width)):
        state[f"{POOLED}{linear}.weight"] = np.zeros((width, features), np.float32)
        state[f"{POOLED}{linear}.bias"] = np.zeros(width, np.float32)
    with written_aside(output) as aside:
        aside.mkdir()
        (aside / "config.json").write_text(json.dumps(_settings(config), indent=2) + "\n")
        write_tensors(aside / _FILE, state, describe(config, step))
    _log.info(
        "%s: feed it zeros as pooled text, and %g t as the timestep, t from 0 (data) to 1 (noise)",
        *(output, config.flow.time_scale),
    )


def _check(config: Config) -> None:
    """Raises ConfigError for what diffusers' class has not."""
    model = config.model
    height, width = config.token_grid()
    obstacles = {
        f"model.network={model.network}": model.network != "mmdit",
        f"model.position={model.position}": model.position not in ("sincos", "none"),
        f"model.conv={model.conv}": model.conv != "none",
        "model.post_norm=True": model.post_norm,
        f"model.block_order={model.block_order}": model.block_order != "sa" and model.scan != "none",
        f"model.mlp_ratio={model.mlp_ratio:g}": model.mlp_ratio != 4,
        f"diffusion.objective={config.diffusion.objective}": config.diffusion.objective != "flow",
        f"flow.convention={config.flow.convention}": config.flow.convention != "noise_time",
        f"a grid of {height} x {width} tokens": height != width,
    }
    if found := [name for name, holds in obstacles.items() if holds]:
        raise ConfigError(f"diffusers' SD3Transformer2DModel has no {found[0]}: give to=torch")


def _settings(config: Config) -> dict[str, Any]:
    model, (height, _, channels) = config.model, config.latent_shape()
    return {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": height,
        "patch_size": model.patch_size,
        "in_channels": channels,
        "out_channels": channels,
        "num_layers": model.depth,
        "attention_head_dim": model.width // model.num_heads,
        "num_attention_heads": model.num_heads,
        "joint_attention_dim": config.text.width,
        "caption_projection_dim": model.width,
        "pooled_projection_dim": config.text.width,
        "pos_embed_max_size": height // model.patch_size,
        "qk_norm": "rms_norm" if model.qk_norm == "rms" else None,
    }
