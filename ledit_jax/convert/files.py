"""PyTorch's files, .pt and .safetensors, single or in diffusers' folders: read piece by piece, written aside.

A pickle is read with torch's restricted unpickler, which refuses whatever is not data. torch is imported inside the
functions that need it, so that nothing else in the package does, and .safetensors need it not.
"""

import contextlib
import errno
import itertools
import json
import re
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ledit_jax.convert.safe import list_safe, read_safe, write_safe
from ledit_jax.convert.tables import Shapes
from ledit_jax.errors import CheckpointError, ConfigError, ConversionError, DataError, one_line
from ledit_jax.files.readers import parse_json, read_json
from ledit_jax.weights import find_checkpoint

_DESCRIPTION = "ledit_jax"  # where a file that we wrote says what it holds
_STEMS = {".safetensors": ("diffusion_pytorch_model", "model"), ".bin": ("diffusion_pytorch_model", "pytorch_model")}
"""How the files of diffusers and of transformers begin. Of sharded ones "-00001-of-00002" follows."""


@dataclass(frozen=True)
class StoredTensors:
    """Tensors on disk: known by name and shape, read when asked for."""

    path: Path
    """What the user named."""
    shapes: Shapes
    places: Mapping[str, tuple[Path, str]]
    """The file that holds a tensor, and its name there."""
    description: Mapping[str, Any]
    """What `write_tensors` was given beside the tensors; empty for everyone else's files."""
    settings: Mapping[str, Any]
    """diffusers' or transformers' config.json; empty where there is none."""

    def under(self, prefix: str) -> "StoredTensors":
        """Those whose names begin with `prefix`, without it."""
        return self._renamed({name: name.removeprefix(prefix) for name in self.shapes if name.startswith(prefix)})

    def without(self, names: Container[str]) -> "StoredTensors":
        """All but these."""
        return self._renamed({name: name for name in self.shapes if name not in names})

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Arrays as float32 (exact from every narrower type), or as stored where they are no floats.

        Files are mapped for this call alone: pages that were read do not stay in memory with the mapping.
        """
        keys: dict[Path, dict[str, str]] = {}
        for name in names:
            path, key = self.places[name]
            keys.setdefault(path, {})[key] = name
        return {keys[path][key]: array for path in keys for key, array in _load(path, keys[path]).items()}

    def _renamed(self, names: Mapping[str, str]) -> "StoredTensors":
        shapes = {names[name]: shape for name, shape in self.shapes.items() if name in names}
        places = {names[name]: place for name, place in self.places.items() if name in names}
        return StoredTensors(self.path, shapes, places, self.description, self.settings)


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """A ConversionError of the block names the file."""
    try:
        yield
    except ConversionError as error:
        raise ConversionError(error.missing, error.unmapped, error.wrong_shape, path) from error


def _to_array(tensor: Any, path: Path, name: str) -> np.ndarray:
    try:
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:  # sparse, quantised, or without values
        kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        raise CheckpointError(f"{path}: {name} is no plain tensor ({kind}): save it as one, in float32") from error


def open_tensors(path: str | Path) -> StoredTensors:
    """The tensors of a .pt, .ckpt, .bin or .safetensors file, or of a folder of diffusers or transformers.

    Of a pipeline's folder the network comes first, then the autoencoder, then the text encoder.

    Nested dictionaries are flattened, "ema.blocks.0.attn.qkv.weight". Raises ConfigError for a path that is missing,
    damaged, holds code or is none of these.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"input={path} does not exist: give a .pt or .safetensors file, or a folder of diffusers")
    if not (path.is_dir() or path.is_file()):
        raise CheckpointError(f"input={path} is no regular file: give a .pt or .safetensors file")
    files = _folder_files(path) if path.is_dir() else [path]
    shapes, places, description = {}, {}, {}
    for file in files:
        found, described = _list(file)
        shapes |= found
        places |= {name: (file, name) for name in found}
        description |= described
    # A file by another name has nothing to do with a config.json that lies beside it.
    by_them = re.split("[-.]", files[0].name)[0] in itertools.chain(*_STEMS.values())
    config = files[0].with_name("config.json")
    settings = read_json(config) if by_them and config.is_file() else {}
    return StoredTensors(path, shapes, places, description, settings)


def _folder_files(folder: Path) -> list[Path]:
    for part in (folder, *(folder / name for name in ("transformer", "vae", "text_encoder"))):
        for name in (f"{stem}{suffix}" for suffix, stems in _STEMS.items() for stem in stems):
            index = part / f"{name}.index.json"
            if index.is_file():
                return _indexed(index)
            if (part / name).is_file():
                return [part / name]
    try:
        find_checkpoint(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"input={folder} is a folder that holds no weights: give a .pt or .safetensors file, or a folder of "
            "diffusers' or transformers' with config.json and diffusion_pytorch_model.safetensors, or "
            "model.safetensors, in it or in its transformer, vae or text_encoder"
        ) from error
    raise CheckpointError(f"input={folder} is a checkpoint of ours: give to=torch to write it as a PyTorch file")


def _indexed(index: Path) -> list[Path]:
    """The files that an index names, which lie beside it."""
    names = read_json(index, fields={"weight_map": dict})["weight_map"].values()
    wrong = [name for name in names if not isinstance(name, str) or Path(name).name != name or "\0" in name]
    if wrong or not names:
        raise DataError(f"{index} names {f'{wrong[0]!r:.80}' if wrong else 'no file'}: download it again")
    missing = [name for name in sorted(set(names)) if not (index.parent / name).is_file()]
    if missing:
        raise DataError(f"{index} names {missing[0]!r:.80}, which is not there: download it again")
    return [index.parent / name for name in sorted(set(names))]


def _list(path: Path) -> tuple[Shapes, dict[str, Any]]:
    """Shapes by name, and the description."""
    if path.suffix == ".safetensors":
        shapes, metadata = list_safe(path)
        description = metadata.get(_DESCRIPTION)
    else:
        loaded = _load_pickle(path)
        shapes = {name: tuple(tensor.shape) for name, tensor in _flatten(loaded)}
        description = getattr(loaded, "_metadata", {}).get(_DESCRIPTION)
    if description is not None and not isinstance(description, str):
        raise DataError(f"{path}: its description is a {type(description).__name__}, and no text: write it again")
    return shapes, parse_json(description, f"{path}: its description") if description else {}


def _load(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        return read_safe(path, names)
    tensors = dict(_flatten(_load_pickle(path)))
    return {name: _to_array(tensors[name], path, name) for name in names}


def _load_pickle(path: Path) -> Any:
    """What torch.save was given. A DiT training file holds its arguments in an argparse.Namespace, which is no code."""
    from argparse import Namespace

    torch, head = _import_torch(), b""
    try:
        with open(path, "rb") as file:
            head = file.read(2)
        is_zip = head == b"PK"  # torch before 1.6 wrote another format, which cannot be mapped
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read raises
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # torch raises many kinds for a damaged file; but for code, all mean the same
        code = re.search(r"(?:GLOBAL|class) `?([\w.]+)", str(error))
        if code:
            raise CheckpointError(
                f"{path} holds code ({code[1]}) and was not opened: give a file of tensors alone, best .safetensors"
            ) from error
        if head > b"\x80\x02" and head[:1] == b"\x80":  # a newer protocol, which torch's restricted reader cannot read
            raise CheckpointError(
                f"{path} is a pickle of another kind than torch.save writes, which may hold code, and was not opened: "
                "give a file of tensors alone, best .safetensors"
            ) from error
        raise _damaged(path, error) from error


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif hasattr(value, "untyped_storage"):
        yield prefix, value.detach()


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ConfigError(f"PyTorch's pickles need {error.name}: pip install torch, or give .safetensors") from error
    return torch


def _damaged(path: Path, error: Exception) -> CheckpointError:
    """torch's advice, to load the file with the code that it may hold, is not passed on."""
    text = one_line(error)
    said = re.search(r"WeightsUnpickler error: (.*)", text)
    ending = r"(Weights only load failed|This is an internal|Please file|Check the documentation).*"
    reason = re.sub(ending, "", said[1] if said else text).strip()
    reason = f"{type(error).__name__}: {reason[:200]}".rstrip(": .")
    return CheckpointError(f"{path} is damaged, cut short or no PyTorch file ({reason}): download it again")


def write_tensors(path: Path, state: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Writes C-contiguous arrays by name to .pt, as a plain state dict, or to .safetensors.

    The description travels in the metadata that both formats keep beside the tensors, where PyTorch's
    `load_state_dict` and other readers pass it by.
    """
    text = json.dumps(description)
    if path.suffix == ".safetensors":
        write_safe(path, state, {_DESCRIPTION: text})
    else:
        from collections import OrderedDict

        torch = _import_torch()
        # torch wants memory that it may write to, and JAX's may not be written to
        tensors = OrderedDict((name, torch.from_numpy(np.require(a, requirements="W"))) for name, a in state.items())
        tensors._metadata = {_DESCRIPTION: text}  # an OrderedDict may carry attributes, and torch's own carry this one
        path.touch()  # where it cannot be, Python says why
        try:
            torch.save(tensors, path)
        except RuntimeError as error:  # torch does not say why it could not write
            raise OSError(errno.ENOSPC, one_line(error)[:100]) from error
