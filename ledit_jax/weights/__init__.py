"""Self-describing weights on disk: what training writes, and what sampling, fine-tuning and conversion read.

A checkpoint is one folder per step with an item each: `ema` and `config` always, in a run's own checkpoints also
`params`, `optimizer` and `data` (ledit_jax/training/checkpoint.py). A VAE's has `vae` and `config`, a text encoder's
`text`, `tokenizer` and `config`, and CLIP's `vision` as well (weights/text.py). Orbax writes a folder aside and renames
it once all of it is there.
"""

import dataclasses
from pathlib import Path
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from ledit_jax.config import AutoencoderConfig, Config
from ledit_jax.config.parse import from_mapping
from ledit_jax.diffusion import make_process
from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.models import Network, Params, abstract_params, make_network
from ledit_jax.models.autoencoders import CONFIGS, Autoencoder, AutoencoderSizes, abstract_vae, network_name
from ledit_jax.weights.checksums import array_checksums, digest, fingerprint, written_checksums
from ledit_jax.weights.found import find_checkpoint, kind_of
from ledit_jax.weights.items import find_places, placed, write_items
from ledit_jax.weights.stored import (
    check_finite,
    damaged,
    describe,
    find_lineage,
    load_config,
    load_description,
    read_arrays,
    read_json,
    stored_shapes,
)
from ledit_jax.weights.text import (
    export_clip,
    export_text,
    load_clip,
    load_text_encoder,
    make_text_encoder,
    text_fingerprint,
)

__all__ = [
    "check_finite",
    "damaged",
    "describe",
    "export_clip",
    "export_text",
    "export_vae",
    "export_weights",
    "find_checkpoint",
    "find_lineage",
    "find_places",
    "fingerprint",
    "load_clip",
    "load_config",
    "load_description",
    "load_text_encoder",
    "load_vae",
    "load_weights",
    "make_text_encoder",
    "open_weights",
    "read_arrays",
    "read_json",
    "stored_shapes",
    "text_fingerprint",
    "vae_description",
    "vae_scale",
    "vae_sizes",
    "weights_id",
]


def export_weights(folder: str | Path, params: Params, config: Config, step: int) -> None:
    """Writes a model's weights as a checkpoint of their own. Raises OutputError if `folder` exists."""
    write_items(folder, step, {"ema": params}, describe(config, step, {"ema": params}))


def export_vae(folder: str | Path, params: Params, config: AutoencoderSizes, scale: float | None = None) -> None:
    """Writes an autoencoder's weights, a nested dict as its modules are named. Raises OutputError if it exists.

    scale: what models multiply its latents by, as its files say.
    """
    description = {"vae": dataclasses.asdict(config), "network": network_name(config), "step": 0}
    description |= {"vae_id": fingerprint(params)}
    description |= {} if scale is None else {"scale": scale}
    description["checksums"] = {"vae": array_checksums(params)}
    write_items(folder, 0, {"vae": params}, description)


def load_weights(
    path: str | Path, weights: str = "ema", *, network: Network | None = None, mesh: Mesh | None = None
) -> tuple[Params, Config, int]:
    """(parameters, config, step) of a model's checkpoint.

    path: a workdir of train.py, a folder of steps (the newest is taken) or one step's folder. weights: "ema" (what
    results are reported with) or "params". network: whose parameters they are, by default the config's. mesh: where
    they go, as `shardings` says; each device reads its own part. Without one they go to the first local device. Raises
    CheckpointError for a folder that is missing, empty, half-written, damaged, lacks those weights or has
    some that are not finite.
    """
    folder, config, step = open_weights(path, weights)
    abstract = abstract_params(network or make_network(config, make_process(config)))
    params = read_arrays(folder, placed(abstract, mesh))
    check_finite(folder.parent, params)
    return params, config, step


def open_weights(path: str | Path, weights: str = "ema") -> tuple[Path, Config, int]:
    """(folder of the arrays, config, step) of a model's checkpoint, with no array read; errors as `load_weights`."""
    folder = find_checkpoint(path)
    if not (folder / weights).is_dir():
        held = [name for name in ("ema", "params", "vae", "text") if (folder / name).is_dir()]
        raise CheckpointError(f"checkpoint {folder} holds no {weights}, only {', '.join(held)}")
    return folder / weights, load_config(folder), load_description(folder)["step"]


def weights_id(path: str | Path, weights: str) -> str:
    """Sixteen hexadecimal digits that tell the weights of a checkpoint from those of another, or of one trained anew.

    Of checkpoints without checksums, it depends on the config, the step and the sizes of the files. weights: "ema",
    "params" or "vae".
    """
    folder = find_checkpoint(path)
    description = load_description(folder)
    sizes = sorted(file.stat().st_size for file in (folder / weights).rglob("*") if file.is_file())
    return digest(written_checksums(description, weights) or [description, sizes])


def load_vae(path: str | Path) -> Autoencoder:
    """The autoencoder of a VAE checkpoint. Raises CheckpointError as `load_weights` does."""
    folder, description = _find_vae(path)
    config = _vae_config(folder, description)
    graphdef, state = abstract_vae(config)
    return nnx.merge(graphdef, read_arrays(folder / "vae", placed(nnx.to_pure_dict(state))))


def vae_description(path: str | Path) -> tuple[AutoencoderSizes, str]:
    """(config, fingerprint of the weights) of a VAE checkpoint, without reading the weights; errors as `load_vae`."""
    folder, description = _find_vae(path)
    if "vae_id" not in description:
        raise CheckpointError(f"checkpoint {folder} has no fingerprint of its weights: convert the autoencoder anew")
    return _vae_config(folder, description), description["vae_id"]


def vae_sizes(path: str | Path) -> AutoencoderSizes:
    """The config of a VAE checkpoint, without reading the weights; errors as `load_vae`."""
    return _vae_config(*_find_vae(path))


def vae_scale(path: str | Path) -> float:
    """What models multiply the latents of a VAE checkpoint by; where it does not say, Stable Diffusion's 0.18215."""
    folder, description = _find_vae(path)
    scale = description.get("scale", AutoencoderConfig().scale)
    if not isinstance(scale, float) or not 0 < scale <= 1e9:
        raise damaged(folder, ValueError(f"scale={scale!r:.40} cannot be"))
    return scale


def _find_vae(path: str | Path) -> tuple[Path, dict[str, Any]]:
    folder = find_checkpoint(path)
    if not (folder / "vae").is_dir():
        raise CheckpointError(
            f"checkpoint {folder} is {kind_of(folder)}'s, and a VAE's is needed: convert one, see the README"
        )
    return folder, load_description(folder)


def _vae_config(folder: Path, description: dict[str, Any]) -> AutoencoderSizes:
    network = description.get("network", "kl")  # earlier versions knew no other
    if network not in tuple(CONFIGS):
        raise damaged(folder, ValueError(f"network={network!r:.40} is unknown"))
    try:
        return from_mapping(CONFIGS[network], description["vae"])
    except ConfigError as error:
        raise CheckpointError(f"checkpoint {folder}: vae.{error}") from error
