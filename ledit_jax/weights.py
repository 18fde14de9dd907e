"""Self-describing weights on disk: what training writes, and what sampling, fine-tuning and conversion read.

A checkpoint is one folder per step with an item each: `ema` and `config` always, in a run's own checkpoints also
`params`, `optimizer` and `data` (ledit_jax/training/checkpoint.py). A VAE's has `vae` and `config`. Orbax writes a
folder aside and renames it once all of it is there.
"""

import dataclasses
import hashlib
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from ledit_jax.config import Config
from ledit_jax.diffusion import make_process
from ledit_jax.errors import CheckpointError
from ledit_jax.models import Params, abstract_params, make_network
from ledit_jax.models.vae import AutoencoderKL, VAEConfig

_PIECE = 64 * 2**20  # bytes of an array that are written at a time, and of a file
_PACKAGES = ("ledit_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def export_weights(folder: str | Path, params: Params, config: Config, step: int) -> None:
    """Writes a model's weights as a checkpoint of their own. Raises CheckpointError if `folder` exists."""
    _write(folder, step, "ema", params, describe(config, step))


def export_vae(folder: str | Path, params: Params, config: VAEConfig) -> None:
    """Writes an autoencoder's weights, a nested dict as its modules are named. Raises CheckpointError if it exists."""
    description = {"vae": dataclasses.asdict(config), "vae_id": fingerprint(params), "step": 0}
    _write(folder, 0, "vae", params, description)


def load_weights(path: str | Path, weights: str = "ema") -> tuple[Params, Config, int]:
    """(parameters on the first local device, config, step) of a model's checkpoint.

    path: a workdir of train.py, a folder of steps (the newest is taken) or one step's folder. weights: "ema" (what
    results are reported with) or "params". Raises CheckpointError for a folder that is missing, empty, half-written,
    damaged or lacks those weights.
    """
    folder = find_checkpoint(path)
    if not (folder / weights).is_dir():
        held = [name for name in ("ema", "params", "vae") if (folder / name).is_dir()]
        raise CheckpointError(f"checkpoint {folder} holds no {weights}, only {', '.join(held)}")
    description = load_description(folder)
    config = Config.from_dict(description["config"])
    network = make_network(config, make_process(config))
    return _read(folder / weights, abstract_params(network)), config, description["step"]


def load_vae(path: str | Path) -> AutoencoderKL:
    """The autoencoder of a VAE checkpoint. Raises CheckpointError as `load_weights` does."""
    folder, description = _find_vae(path)
    config = VAEConfig(**description["vae"])
    graphdef, state = nnx.split(nnx.eval_shape(lambda: AutoencoderKL(config, nnx.Rngs(0))), nnx.Param)
    return nnx.merge(graphdef, _read(folder / "vae", nnx.to_pure_dict(state)))


def vae_description(path: str | Path) -> tuple[VAEConfig, str]:
    """(config, fingerprint of the weights) of a VAE checkpoint, without reading the weights; errors as `load_vae`."""
    folder, description = _find_vae(path)
    if "vae_id" not in description:
        raise CheckpointError(f"checkpoint {folder} has no fingerprint of its weights: convert the autoencoder anew")
    return VAEConfig(**description["vae"]), description["vae_id"]


def fingerprint(params: Params) -> str:
    """Sixteen hexadecimal digits that depend on every name, shape, dtype and value."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def find_checkpoint(path: str | Path) -> Path:
    """The folder of one step, given that folder, a folder of steps (the newest is taken) or a workdir.

    Raises CheckpointError if there is none or it is not complete.
    """
    path = Path(path).absolute()
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} does not exist: give a workdir of train.py or a checkpoint folder")
    if (path / "checkpoints").is_dir():
        path = path / "checkpoints"
    if any((path / item).is_dir() for item in ("config", "ema", "vae")):
        return _check_complete(path)
    steps = sorted((int(p.name), p) for p in path.iterdir() if p.is_dir() and p.name.isdigit())
    if steps:
        return _check_complete(steps[-1][1])
    if any(".orbax-checkpoint-tmp" in p.name for p in path.iterdir()):
        raise CheckpointError(f"checkpoint {path} is half-written and was never finished: use another one")
    raise CheckpointError(f"checkpoint {path} holds no steps: give a workdir of train.py or a checkpoint folder")


def describe(config: Config, step: int) -> dict[str, Any]:
    """What the `config` item of a model's checkpoint holds."""
    versions = {name: _version(name) for name in _PACKAGES}
    return {"config": config.to_dict(), "step": step, "versions": versions}


def load_description(folder: Path) -> dict[str, Any]:
    """The `config` item of a step's folder. Raises CheckpointError if it cannot be read."""
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
            return checkpointer.restore(folder / "config")
    except Exception as error:  # Orbax raises many kinds for a damaged file; all mean the same to the user
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> CheckpointError:
    """The error to raise for a folder that Orbax could not read."""
    _silence_unfinished_reads()
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    return CheckpointError(f"checkpoint {folder} is damaged ({type(error).__name__}: {reason}): use another one")


def _silence_unfinished_reads() -> None:
    """When one read fails, Orbax leaves the others under way, and each of them would print a traceback as it ends."""
    inherited = sys.unraisablehook

    def report(unraisable) -> None:
        late = "Event loop is closed" in str(unraisable.exc_value)
        left = getattr(unraisable.object, "__qualname__", "").startswith("_read_array")
        if not (late or left):
            inherited(unraisable)

    sys.unraisablehook = report


def _find_vae(path: str | Path) -> tuple[Path, dict[str, Any]]:
    folder = find_checkpoint(path)
    if not (folder / "vae").is_dir():
        raise CheckpointError(f"checkpoint {folder} is a model's, and a VAE's is needed: convert one, see the README")
    return folder, load_description(folder)


def _write(folder: str | Path, step: int, item: str, params: Params, description: dict[str, Any]) -> None:
    folder = Path(folder).absolute()
    if folder.exists():
        raise CheckpointError(f"{folder} exists already: choose another place or remove it first")
    # In pieces: what waits to be written would otherwise fill as much memory again as the weights.
    pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_PIECE), params)
    saved = ocp.args.PyTreeSave(params, save_args=pieces, ocdbt_target_data_file_size=_PIECE)
    items = {item: saved, "config": ocp.args.JsonSave(description)}
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(create=True)) as manager:
        manager.save(step, args=ocp.args.Composite(**items))


def _read(folder: Path, abstract: Params) -> Params:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), abstract)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder, abstract)
    except Exception as error:  # as in load_description
        raise damaged(folder.parent, error) from error


def _check_complete(folder: Path) -> Path:
    missing = [name for name in ("config", "ema") if not (folder / name).is_dir() and not (folder / "vae").is_dir()]
    if missing or not (folder / "_CHECKPOINT_METADATA").is_file():
        what = missing[0] if missing else "commit mark"
        raise CheckpointError(f"checkpoint {folder} is half-written (it has no {what}): use another one")
    return folder


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # ledit_jax run from a checkout
        return "source"
