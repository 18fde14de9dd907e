"""Tensors on disk to parameters of ours, one after another, each checked for what cannot be a weight."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ledit_jax.config import Config
from ledit_jax.convert.files import StoredTensors
from ledit_jax.convert.tables import Table, flatten_params, unflatten_params
from ledit_jax.errors import CheckpointError, ConfigError, DataError
from ledit_jax.files.readers import check_json
from ledit_jax.models import Params


def read_description(stored: StoredTensors) -> tuple[Config | None, int]:
    """(config, step) that a file of ours says; (None, 0) for everyone else's. Raises CheckpointError, DataError."""
    description = stored.description
    step = check_json({"step": 0} | description, f"{stored.path}: its description", fields={"step": int})["step"]
    if not 0 <= step < 2**63:
        raise DataError(f"{stored.path}: step={step} cannot be: write it again")
    if "config" not in description:
        return None, step
    try:
        return Config.from_dict(description["config"]), step
    except ConfigError as error:
        raise CheckpointError(f"{stored.path}: its description: {error}") from error


def read_finite(stored: StoredTensors, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Tensors by name. Raises CheckpointError for values that are not finite."""
    state = stored.read(names)
    for name, array in state.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(f"{stored.path}: {name} holds values that are not finite: download it again")
    return state


def convert_rows(stored: StoredTensors, table: Table, like: Params) -> Params:
    """Reads and converts one parameter after another, the largest first: that one is held twice for a moment."""
    sizes = {path: leaf.size * leaf.dtype.itemsize for path, leaf in flatten_params(like).items()}
    flat = {}
    with tqdm(total=sum(sizes.values()), desc="convert", unit="B", unit_scale=True) as bar:
        for row in sorted(table, key=lambda row: sizes[row.path], reverse=True):
            # Not jnp.asarray, which copies twice; and the NumPy array gets no name, to be gone before the next is read.
            array = jax.device_put(row.join(read_finite(stored, [name for names in row.layers for name in names])))
            if array.dtype != jnp.float32:
                raise CheckpointError(f"{row.layers[0][0]} holds {array.dtype}: weights are floating-point numbers")
            flat[row.path] = array.block_until_ready()
            bar.update(array.nbytes)
    return unflatten_params(flat, like)
