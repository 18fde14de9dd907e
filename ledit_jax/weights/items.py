"""The items of a checkpoint: how arrays and JSON are written, and where arrays are read to."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from ledit_jax.errors import OutputError
from ledit_jax.files import as_place, check_place, is_bucket
from ledit_jax.files.refusals import writing
from ledit_jax.models import Params
from ledit_jax.parallel.sharding import shardings
from ledit_jax.weights.durable import DurableSave

_PIECE = 64 * 2**20  # bytes of an array that are written at a time, and of a file


def write_items(
    folder: str | Path,
    step: int,
    arrays: Mapping[str, Params],
    description: dict[str, Any],
    texts: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Writes a step with its items: trees of arrays, the description as `config`, and `texts`, more JSON.

    Raises OutputError if `folder` exists or cannot be written.
    """
    check_place(folder, ("gs",))
    folder = as_place(folder) if is_bucket(folder) else Path(folder).absolute()
    if folder.exists() if is_bucket(folder) else os.path.exists(folder):
        raise OutputError(f"{folder} exists already: choose another place or remove it first")

    def saved(params: Params) -> ocp.args.PyTreeSave:
        # In pieces: what waits to be written would otherwise fill as much memory again as the weights.
        pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_PIECE), params)
        return ocp.args.PyTreeSave(params, save_args=pieces, ocdbt_target_data_file_size=_PIECE)

    items = {name: saved(params) for name, params in arrays.items()}
    items |= {name: ocp.args.JsonSave(values) for name, values in (texts or {}).items()}
    items["config"] = DurableSave(description)
    options = ocp.CheckpointManagerOptions(create=True)
    if not is_bucket(folder):
        with writing(folder):
            folder.mkdir(parents=True)
    with ocp.CheckpointManager(folder, options=options) as manager:
        manager.save(step, args=ocp.args.Composite(**items))


def find_places(abstract: Params, mesh: Mesh | None) -> Params:
    """The sharding of each parameter: on the mesh, or without one the first local device."""
    if mesh is not None:
        return shardings(mesh, abstract)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda _: here, abstract)


def placed(abstract: Params, mesh: Mesh | None = None) -> Params:
    """Abstract parameters that say where each of them goes, as `read_arrays` takes them."""
    places = find_places(abstract, mesh)
    return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, places)
