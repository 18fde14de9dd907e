"""Checkpoints as they lie on disk: which folder, what it says of itself, and its arrays read and checked."""

import asyncio
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from ledit_jax.config import Config
from ledit_jax.errors import CheckpointError, ConfigError, DamagedCheckpoint, named, one_line
from ledit_jax.files import Place
from ledit_jax.files.readers import check_json
from ledit_jax.models import Params
from ledit_jax.weights.checksums import array_checksums, changed_arrays, sooner_on_host, written_checksums

_PACKAGES = ("ledit_jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def describe(config: Config, step: int, items: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the `config` item of a model's checkpoint holds; items: the trees beside it, for their checksums."""
    versions = {name: _version(name) for name in _PACKAGES}
    checksums = {name: array_checksums(tree) for name, tree in (items or {}).items()}
    return {"config": config.to_dict(), "step": step, "versions": versions} | (
        {"checksums": checksums} if checksums else {}
    )


def load_description(folder: Place) -> dict[str, Any]:
    """The `config` item of a step's folder. Raises CheckpointError if it cannot be read or has another form."""
    own = next((name for name in ("vae", "text") if (folder / name).is_dir()), "config")
    description = read_json(folder, "config", {"step": int, own: dict})
    if not 0 <= description["step"] < 2**63:
        raise damaged(folder, ValueError(f"step={str(description['step'])[:40]} cannot be"))
    return description


def load_config(folder: Place) -> Config:
    """The config of a model's step folder. Raises CheckpointError, naming the folder and the setting, if it is none."""
    try:
        return Config.from_dict(load_description(folder)["config"])
    except ConfigError as error:
        raise CheckpointError(f"checkpoint {folder}: {error}") from error


def find_lineage(folder: Place) -> tuple[int, ...]:
    """The steps of the checkpoints that a run started from (`init_from`), and each of those in its turn, oldest first.

    folder: a step's. Empty for a run from scratch and for converted weights.
    """
    description = load_description(folder)
    lineage = description.get("lineage", [])  # earlier versions wrote none
    if not isinstance(lineage, list) or not all(type(step) is int and 0 <= step < 2**63 for step in lineage):
        raise damaged(folder, ValueError(f"lineage={lineage!r:.80} cannot be"))
    return tuple(lineage)


def read_json(folder: Place, item: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An item of a step's folder that is JSON, with these fields, as `readers.check_json` takes them.

    Raises CheckpointError if it cannot be read or has another form.
    """
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
            values = checkpointer.restore(folder / item)
        return check_json(values, f"its {item}", fields=fields)
    except Exception as error:  # Orbax raises many kinds for a damaged file; all mean the same to the user
        raise damaged(folder, error) from error


def damaged(folder: Place, error: BaseException) -> DamagedCheckpoint:
    """The error to raise for a folder that Orbax could not read."""
    while error.__cause__:  # what Orbax says on top is about its own arrays
        error = error.__cause__
    return DamagedCheckpoint(f"checkpoint {folder} is damaged ({_reason(error)}): use another one")


def _reason(error: BaseException) -> str:
    """In a few words; what the store of arrays says is about its own drivers and byte ranges."""
    text = one_line(error)
    if array := re.search(r'(?:Error reading|Metadata at) "([^"]+)/[^"/]+"', text):
        return f"its array {array[1]} is missing or cut short"
    if shapes := re.search(r"Requested shape: (\(.*?\)) is not compatible with the stored shape: (\(.*?\))", text):
        return f"an array is {shapes[2]}, and {shapes[1]} is needed"
    return named(error)


def stored_shapes(folder: Place) -> Params:
    """Shapes and dtypes of the arrays in an item's folder, as they were written."""
    try:
        stored = ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), stored)
    except Exception as error:  # as in read_json
        raise damaged(folder.parent, error) from error


def read_arrays(folder: Place, abstract: Any) -> Any:
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


def _check_values(folder: Place, arrays: Any) -> None:
    changed = changed_arrays(written_checksums(load_description(folder.parent), folder.name), arrays)
    if changed:
        raise DamagedCheckpoint(
            f"checkpoint {folder.parent} is damaged: of {folder.name}, {len(changed)} arrays are not as they were "
            f"written, {changed[0]} first: use another one"
        )


@jax.jit
def _are_finite(arrays: PyTree) -> PyTree:
    return jax.tree.map(lambda array: jnp.isfinite(array).all(), arrays)


def check_finite(folder: Place, params: Params) -> None:
    """Raises DamagedCheckpoint, naming the first, if any of the arrays read from `folder` holds NaN or infinity."""
    if sooner_on_host(jax.tree.leaves(params)):
        finite = jax.tree.map(lambda array: np.isfinite(np.asarray(array)).all(), params)
    else:
        finite = jax.device_get(_are_finite(params))
    bad = [
        jax.tree_util.keystr(path) for path, is_finite in jax.tree_util.tree_leaves_with_path(finite) if not is_finite
    ]
    if bad:
        raise DamagedCheckpoint(
            f"checkpoint {folder} has {bad[0]} that is not finite ({len(bad)} arrays): use another one"
        )


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


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # ledit_jax run from a checkout
        return "source"
