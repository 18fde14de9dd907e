"""The .safetensors format: tensors as NumPy arrays, without PyTorch.

safetensors is imported inside the functions, so that nothing that reads our own checkpoints needs it.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # which makes NumPy know bfloat16
import numpy as np

from ledit_jax.convert.tables import Shapes
from ledit_jax.errors import CheckpointError, ConfigError, LEDiTError, named
from ledit_jax.files.readers import ARRAY_ERRORS


def list_safe(path: Path) -> tuple[Shapes, dict[str, str]]:
    """(shapes by name, metadata) of a file. Raises CheckpointError where it is damaged."""
    with _open(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_safe(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Arrays by name, floats as float32. Raises CheckpointError where the file is damaged or holds other numbers."""
    with _open(path) as file:
        return {name: _read(file, path, name) for name in names}


def write_safe(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes C-contiguous arrays by name. The file says that PyTorch may read it too."""
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise _missing(error) from error
    save_file(dict(arrays), path, metadata={"format": "pt"} | dict(metadata))


def _read(file: Any, path: Path, name: str) -> np.ndarray:
    try:
        array = file.get_tensor(name)
    except (AttributeError, KeyError, TypeError) as error:  # NumPy has no such type
        kind = file.get_slice(name).get_dtype()
        raise CheckpointError(f"{path}: {name} holds {kind}: save it in float32, float16 or bfloat16") from error
    is_float = array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16
    return np.asarray(array, np.float32) if is_float else array


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise _missing(error) from error
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except LEDiTError:
        raise
    except (SafetensorError, *ARRAY_ERRORS) as error:
        reason = named(error).rstrip(": .")
        raise CheckpointError(
            f"{path} is damaged, cut short or no PyTorch file ({reason}): download it again"
        ) from error


def _missing(error: ImportError) -> ConfigError:
    return ConfigError(f"a .safetensors file needs {error.name}: pip install safetensors")
