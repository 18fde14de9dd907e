"""Files of others: JSON and NumPy's archives, of which the shape and the type are checked before they are believed.

Of an archive no more is read than its directory announces, and nothing before that fits what its header says.
"""

import contextlib
import io
import json
import lzma
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ledit_jax.errors import DataError, LEDiTError, named
from ledit_jax.files.bucket import Place, reaching

T = TypeVar("T")
Shape = tuple[int | None, ...]
"""Of an array; None is any length."""
ARRAY_ERRORS = (
    *(OSError, ValueError, EOFError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
"""What NumPy and zipfile raise for a .npy or .npz that is missing, cut short, damaged or encrypted."""
MOST_BYTES = 16 * 2**30
"""Of one array that is read into memory."""
_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_json(path: Place, kind: type[T] = dict, fields: Mapping[str, Any] | None = None) -> T:
    """What a JSON file holds. Raises DataError where it is missing, no JSON, or not as `check_json` wants it."""
    try:
        with reaching(path):
            text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): check the place") from error
    except ValueError as error:
        raise _no_json(path, error) from error
    return parse_json(text, path, kind, fields)


def parse_json(text: str, name: object, kind: type[T] = dict, fields: Mapping[str, Any] | None = None) -> T:
    """What a JSON text holds; errors as `read_json`. name: of the place, for messages."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_json(name, error) from error
    return check_json(values, name, kind, fields)


def check_json(values: Any, name: object, kind: type[T] = dict, fields: Mapping[str, Any] | None = None) -> T:
    """The values, if they are of the type `kind` and, of a dict, each of `fields` is there with the type it names.

    fields: name -> type, or several of them; a whole number passes for a float, and None is a type. Raises DataError.
    """
    if not _is(values, kind):
        found = type(values).__name__
        raise DataError(f"{name} holds a {found}, and a {kind.__name__} is needed: remove it, or make it anew")
    for field, wanted in (fields or {}).items():
        if field not in values:
            raise DataError(f"{name} lacks {field}: remove it, or make it anew")
        kinds = wanted if isinstance(wanted, tuple) else (wanted,)
        if not any(_is(values[field], kind) for kind in kinds):
            names = " or ".join("null" if kind is None else kind.__name__ for kind in kinds)
            found = type(values[field]).__name__
            raise DataError(f"{name}: {field} is a {found}, and a {names} is needed: remove the file, or make it anew")
    return values


def _is(value: Any, kind: type | None) -> bool:
    if kind is None or isinstance(value, bool):
        return value is kind if kind is None else kind in (bool, object)
    return isinstance(value, (int, float) if kind is float else kind)


def _no_json(name: object, error: Exception) -> DataError:
    return DataError(f"{name} is damaged or no JSON ({error}): remove it, or make it anew")


@dataclass(frozen=True)
class Header:
    """What the head of a .npy says."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool

    @property
    def num_bytes(self) -> int:
        """Of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: io.BufferedIOBase, total: int) -> Header:
    """The head of a .npy of `total` bytes, which the values then fill. Raises ValueError where that cannot be."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format is not known")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the parser, about what a damaged header looks like
        try:
            shape, is_fortran, dtype = read(stream)
        except Exception as error:  # it is read as Python's tokens and literals, which fail in many ways
            raise ValueError(f"its header is damaged ({type(error).__name__})") from error
    header = Header(shape, dtype, is_fortran)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise ValueError(f"shape {list(shape)}")
    if header.num_bytes != total - stream.tell():
        raise ValueError(f"{dtype} {list(shape)} are {header.num_bytes} bytes, and it has {total - stream.tell()}")
    return header


@contextlib.contextmanager
def open_array(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[io.BufferedIOBase, Header]]:
    """(stream at the first value, header) of an array in an archive. Raises what `reading` puts in one line."""
    member = archive.getinfo(f"{name}.npy")
    if member.flag_bits & 1:
        raise ValueError(f"{name} is encrypted")
    if member.compress_type not in _COMPRESSION:
        raise ValueError(f"{name} is compressed in a way that NumPy does not write")
    with archive.open(member) as stream:
        yield stream, read_header(stream, member.file_size)


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """Names of the arrays in an archive."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def read_npz(path: Path, wanted: Callable[[str, Header], bool], *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The arrays of an .npz for which wanted(name, header) is true. It may raise DataError, to refuse what it sees.

    most_bytes: that one may have. Raises DataError for an archive that is damaged, encrypted or says what cannot be.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        arrays = {}
        for name in array_names(archive):
            with open_array(archive, name) as (stream, header):
                if wanted(name, header):
                    arrays[name] = _read_values(stream, header, name, most_bytes)
        return arrays


def read_npy(path: Path, shape: Shape, dtype: str, advice: str = "write it again") -> np.ndarray:
    """The array of a .npy file. Raises DataError unless it is whole and has this dtype and shape."""
    with reading(path, advice), open(path, "rb") as stream:
        header = read_header(stream, os.fstat(stream.fileno()).st_size)
        check_array(path, path.stem, header, shape, dtype)
        return _read_values(stream, header, path.stem, MOST_BYTES)


def check_npy(path: Path, shape: Shape, dtype: str, advice: str = "write it again") -> None:
    """Raises DataError as `read_npy` does, from the head and the size of the file: its values are not looked at."""
    with reading(path, advice), open(path, "rb") as stream:
        header = read_header(stream, os.fstat(stream.fileno()).st_size)
        check_array(path, path.stem, header, shape, dtype)


def check_array(path: Path, name: str, header: Header, shape: Shape, kinds: str) -> None:
    """Raises DataError unless an array has this shape and one of these kinds: a dtype's name, or letters as "fiu"."""
    fits = len(header.shape) == len(shape) and all(
        wanted in (None, found) for found, wanted in zip(header.shape, shape, strict=True)
    )
    if not fits or (header.dtype.name != kinds and header.dtype.kind not in kinds):
        needed = ", ".join("any" if side is None else str(side) for side in shape)
        raise DataError(
            f"{path}: {name} is {header.dtype} {list(header.shape)}, and [{needed}] is needed: make the file again"
        )


@contextlib.contextmanager
def reading(path: Place, advice: str = "write it again") -> Iterator[None]:
    """Names a file that the zip or npy format does not recognise, with a DataError."""
    try:
        yield
    except LEDiTError:
        raise
    except ARRAY_ERRORS as error:
        raise DataError(f"{path} is damaged or cut short ({named(error)}): {advice}") from error


def _read_values(stream: io.BufferedIOBase, header: Header, name: str, most_bytes: int) -> np.ndarray:
    if header.num_bytes > most_bytes:
        raise ValueError(f"{name} is {header.num_bytes / 2**30:.1f} GiB, of which {most_bytes / 2**30:.1f} are read")
    data = stream.read(header.num_bytes)
    if len(data) < header.num_bytes or stream.read(1):  # the second read is what checks a zip's checksum
        raise ValueError(f"{name} is cut short")
    array = np.frombuffer(bytearray(data), header.dtype)
    return array.reshape(header.shape, order="F" if header.is_fortran else "C")
