"""Self-describing weights on disk: what training writes, and what sampling, fine-tuning and conversion read.

A checkpoint is one folder per step with an item each: `ema` and `config` always, in a run's own checkpoints also
`params`, `optimizer` and `data` (ledit_jax/training/checkpoint.py). A VAE's has `vae` and `config`. Orbax writes a
folder aside and renames it once all of it is there.
"""

import asyncio
import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from ledit_jax.checksums import array_checksums, changed_arrays, digest, fingerprint, written_checksums
from ledit_jax.config import Config
from ledit_jax.config.parse import from_mapping
from ledit_jax.diffusion import make_process
from ledit_jax.errors import CheckpointError, ConfigError, OutputError
from ledit_jax.models import Network, Params, abstract_params, make_network
from ledit_jax.models.vae import AutoencoderKL, VAEConfig
from ledit_jax.parallel.sharding import shardings
from ledit_jax.readers import check_json

_PIECE = 64 * 2**20  # bytes of an array that are written at a time, and of a file
_PACKAGES = ("ledit_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def export_weights(folder: str | Path, params: Params, config: Config, step: int) -> None:
    """Writes a model's weights as a checkpoint of their own. Raises OutputError if `folder` exists."""
    _write(folder, step, "ema", params, describe(config, step, {"ema": params}))


def export_vae(folder: str | Path, params: Params, config: VAEConfig) -> None:
    """Writes an autoencoder's weights, a nested dict as its modules are named. Raises OutputError if it exists."""
    description = {"vae": dataclasses.asdict(config), "vae_id": fingerprint(params), "step": 0}
    description["checksums"] = {"vae": array_checksums(params)}
    _write(folder, 0, "vae", params, description)


def load_weights(
    path: str | Path, weights: str = "ema", *, network: Network | None = None, mesh: Mesh | None = None
) -> tuple[Params, Config, int]:
    """(parameters, config, step) of a model's checkpoint.

    path: a workdir of train.py, a folder of steps (the newest is taken) or one step's folder. weights: "ema" (what
    results are reported with) or "params". network: whose parameters they are, by default the config's. mesh: where
    they go, as `shardings` says; each device reads its own part. Without one they go to the first local device. Raises
    CheckpointError for a folder that is missing, empty, half-written, damaged or lacks those weights.
    """
    folder, config, step = open_weights(path, weights)
    abstract = abstract_params(network or make_network(config, make_process(config)))
    return read_arrays(folder, _placed(abstract, mesh)), config, step


def open_weights(path: str | Path, weights: str = "ema") -> tuple[Path, Config, int]:
    """(folder of the arrays, config, step) of a model's checkpoint, with no array read; errors as `load_weights`."""
    folder = find_checkpoint(path)
    if not (folder / weights).is_dir():
        held = [name for name in ("ema", "params", "vae") if (folder / name).is_dir()]
        raise CheckpointError(f"checkpoint {folder} holds no {weights}, only {', '.join(held)}")
    description = load_description(folder)
    try:
        return folder / weights, Config.from_dict(description["config"]), description["step"]
    except ConfigError as error:
        raise CheckpointError(f"checkpoint {folder}: {error}") from error


def weights_id(path: str | Path, weights: str) -> str:
    """Sixteen hexadecimal digits that tell the weights of a checkpoint from those of another, or of one trained anew.

    Of checkpoints without checksums, it depends on the config, the step and the sizes of the files. weights: "ema",
    "params" or "vae".
    """
    folder = find_checkpoint(path)
    description = load_description(folder)
    sizes = sorted(file.stat().st_size for file in (folder / weights).rglob("*") if file.is_file())
    return digest(written_checksums(description, weights) or [description, sizes])


def find_places(abstract: Params, mesh: Mesh | None) -> Params:
    """The sharding of each parameter: on the mesh, or without one the first local device."""
    if mesh is not None:
        return shardings(mesh, abstract)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda _: here, abstract)


def stored_shapes(folder: Path) -> Params:
    """Shapes and dtypes of the arrays in an item's folder, as they were written."""
    try:
        stored = ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), stored)
    except Exception as error:  # as in read_json
        raise damaged(folder.parent, error) from error


def read_arrays(folder: Path, abstract: Any) -> Any:
    """The arrays of an item's folder, as `abstract` says: ShapeDtypeStructs with shardings, in the tree that is stored.

    Each device gets its own part alone; every process that holds some must call this, since values are held against
    the checksums that were written with them, where there are any. A leaf `ocp.PLACEHOLDER` is
    not read, and returned as it is.
    """
    placeholders = ocp.type_handlers.get_type_handler(type(ocp.PLACEHOLDER))
    registry = ocp.type_handlers.create_type_handler_registry(
        (jax.Array, _ArrayReader()), (type(ocp.PLACEHOLDER), placeholders)
    )
    how = ocp.checkpoint_utils.construct_restore_args(abstract)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=registry)) as checkpointer:
            arrays = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(abstract, restore_args=how))
    except Exception as error:  # as in read_json
        raise damaged(folder.parent, error) from error
    _check_values(folder, arrays)
    return arrays


def _check_values(folder: Path, arrays: Any) -> None:
    changed = changed_arrays(written_checksums(load_description(folder.parent), folder.name), arrays)
    if changed:
        raise CheckpointError(
            f"checkpoint {folder.parent} is damaged: of {folder.name}, {len(changed)} arrays are not as they were "
            f"written, {changed[0]} first: use another one"
        )


def load_vae(path: str | Path) -> AutoencoderKL:
    """The autoencoder of a VAE checkpoint. Raises CheckpointError as `load_weights` does."""
    folder, description = _find_vae(path)
    config = _vae_config(folder, description)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: AutoencoderKL(config, nnx.Rngs(0))), nnx.Param)
    return nnx.merge(graphdef, read_arrays(folder / "vae", _placed(nnx.to_pure_dict(state))))


def vae_description(path: str | Path) -> tuple[VAEConfig, str]:
    """(config, fingerprint of the weights) of a VAE checkpoint, without reading the weights; errors as `load_vae`."""
    folder, description = _find_vae(path)
    if "vae_id" not in description:
        raise CheckpointError(f"checkpoint {folder} has no fingerprint of its weights: convert the autoencoder anew")
    return _vae_config(folder, description), description["vae_id"]


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
    steps = sorted((int(p.name), p) for p in path.iterdir() if p.is_dir() and p.name.isdecimal())
    if steps:
        return _check_complete(steps[-1][1])
    if any(".orbax-checkpoint-tmp" in p.name for p in path.iterdir()):
        raise CheckpointError(f"checkpoint {path} is half-written and was never finished: use another one")
    raise CheckpointError(f"checkpoint {path} holds no steps: give a workdir of train.py or a checkpoint folder")


def describe(config: Config, step: int, items: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the `config` item of a model's checkpoint holds; items: the trees beside it, for their checksums."""
    versions = {name: _version(name) for name in _PACKAGES}
    checksums = {name: array_checksums(tree) for name, tree in (items or {}).items()}
    return {"config": config.to_dict(), "step": step, "versions": versions} | (
        {"checksums": checksums} if checksums else {}
    )


def load_description(folder: Path) -> dict[str, Any]:
    """The `config` item of a step's folder. Raises CheckpointError if it cannot be read or has another form."""
    fields = {"step": int, "vae": dict} if (folder / "vae").is_dir() else {"step": int, "config": dict}
    return read_json(folder, "config", fields)


def read_json(folder: Path, item: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An item of a step's folder that is JSON, with these fields, as `readers.check_json` takes them.

    Raises CheckpointError if it cannot be read or has another form.
    """
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
            values = checkpointer.restore(folder / item)
        return check_json(values, f"its {item}", fields=fields)
    except Exception as error:  # Orbax raises many kinds for a damaged file; all mean the same to the user
        raise damaged(folder, error) from error


def damaged(folder: Path, error: BaseException) -> CheckpointError:
    """The error to raise for a folder that Orbax could not read."""
    while error.__cause__:  # what Orbax says on top is about its own arrays
        error = error.__cause__
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    return CheckpointError(f"checkpoint {folder} is damaged ({type(error).__name__}: {reason}): use another one")


class _ArrayReader(ocp.type_handlers.ArrayHandler):
    """Reads arrays as Orbax does, but fails only once every read that is under way has ended.

    Orbax closes its event loop at the first failure, and each read that ends later would print a traceback.
    """

    async def deserialize(self, infos: Sequence[Any], args: Sequence[Any] | None = None) -> Sequence[jax.Array]:
        before = asyncio.all_tasks()
        try:
            return await super().deserialize(infos, args)
        except Exception:
            await asyncio.gather(*asyncio.all_tasks() - before, return_exceptions=True)
            raise


def _find_vae(path: str | Path) -> tuple[Path, dict[str, Any]]:
    folder = find_checkpoint(path)
    if not (folder / "vae").is_dir():
        raise CheckpointError(f"checkpoint {folder} is a model's, and a VAE's is needed: convert one, see the README")
    return folder, load_description(folder)


def _vae_config(folder: Path, description: dict[str, Any]) -> VAEConfig:
    try:
        return from_mapping(VAEConfig, description["vae"])
    except ConfigError as error:
        raise CheckpointError(f"checkpoint {folder}: vae.{error}") from error


def _write(folder: str | Path, step: int, item: str, params: Params, description: dict[str, Any]) -> None:
    folder = Path(folder).absolute()
    if folder.exists():
        raise OutputError(f"{folder} exists already: choose another place or remove it first")
    # In pieces: what waits to be written would otherwise fill as much memory again as the weights.
    pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_PIECE), params)
    saved = ocp.args.PyTreeSave(params, save_args=pieces, ocdbt_target_data_file_size=_PIECE)
    items = {item: saved, "config": ocp.args.JsonSave(description)}
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(create=True)) as manager:
        manager.save(step, args=ocp.args.Composite(**items))


def _placed(abstract: Params, mesh: Mesh | None = None) -> Params:
    places = find_places(abstract, mesh)
    return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, places)


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
