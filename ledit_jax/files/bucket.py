"""Places in a bucket, such as gs://bucket/run: told from folders of this machine, looked into, and written to.

A bucket has objects with names, and neither folders nor moves, locks or files that grow. So all that is written there
is written here first, and appears whole, with the one request that ends its upload. Listings are never remembered:
other hosts, and the store of arrays, write there too.

etils looks into buckets; fsspec writes, as etils' own backend does, since a writer of etils that fails midway leaves
an object that is cut short. gs:// needs gcsfs, s3:// s3fs, and az:// adlfs.
"""

import contextlib
import errno
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from ledit_jax.errors import DataError, LEDiTError, OutputError, named

Place = Path | epath.Path
"""A Path of this machine, or etils' of a bucket."""
BUCKETS = ("gs", "s3", "az")
"""What addresses of buckets begin with."""
MARK = "_CHECKPOINT_METADATA"
"""What Orbax writes last into a folder on a disk: the checkpoint beside it is whole."""
MARKS = (MARK, "commit_success.txt")
"""The same of a bucket, in this order."""
_ADDRESS = re.compile(r"(gs|s3|az):/+")
_LIBRARY = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}


def is_bucket(place: str | Place) -> bool:
    """Whether it is an address in a bucket; a Path made of one, which has lost a slash, counts too."""
    return _ADDRESS.match(str(place)) is not None


def as_place(name: str | Place) -> Place:
    """A name as a place: on this machine, or in a bucket."""
    match = _ADDRESS.match(str(name))
    if match is None:
        return Path(name)
    _remember_no_listings()
    return epath.Path(f"{match[1]}://{str(name)[match.end() :]}")


@contextlib.contextmanager
def reaching(address: str | Place, kind: type[LEDiTError] = DataError) -> Iterator[None]:
    """Around what asks a bucket: an error of this kind, in a line, for what the library behind it raises.

    Of a place on this machine, errors stay as they are.
    """
    try:
        yield
    except Exception as error:  # of a dozen kinds
        if isinstance(error, LEDiTError) or not is_bucket(address):
            raise
        address = as_place(address)
        what = "written" if kind is OutputError else "read"
        advice = "check the name, and your rights"
        if isinstance(error, ImportError):
            advice = f"pip install {_LIBRARY[str(address)[:2]]}"
        failure = kind(f"{address} cannot be {what} ({named(error)}): {advice}")
        if isinstance(failure, OSError):
            failure.errno = errno.EIO
        raise failure from error


def put(source: Path, place: epath.Path) -> None:
    """Uploads a file as an object, or a folder with all in it, object by object and marks last. Raises OutputError."""
    with reaching(place, OutputError):
        if not source.is_dir():
            return open_bucket(place)[0].put_file(str(source), str(place))
        system, root = open_bucket(place)
        files = (path for path in source.rglob("*") if path.is_file())
        for file in sorted(files, key=lambda path: (path.name in MARKS, path)):
            system.put_file(str(file), f"{root}/{file.relative_to(source).as_posix()}")


def put_new(text: str, place: epath.Path) -> bool:
    """Writes an object that must not be there yet; whether it was not, where the store looks (Google's and Amazon's).

    Raises OutputError.
    """
    with reaching(place, OutputError):
        system, path = open_bucket(place)
        try:
            system.pipe_file(path, text.encode(), mode="create")
        except FileExistsError:
            return False
    return True


def folders_in(place: str | Place) -> list[str]:
    """Names of the folders in a place, in order; empty for a place that is not there. Raises DataError."""
    place = as_place(place)
    if isinstance(place, Path):
        return sorted(entry.name for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []
    with reaching(place):
        system, path = open_bucket(place)
        found = system.ls(path, detail=True) if system.isdir(path) else []
    return sorted(Path(entry["name"]).name for entry in found if entry["type"] == "directory")


def size_of(place: Place) -> int:
    """Bytes of a file."""
    stat = place.stat()
    return stat.st_size if isinstance(place, Path) else stat.length


def open_bucket(place: epath.Path) -> tuple[Any, str]:
    """(fsspec's file system, the path in it)."""
    import fsspec

    return fsspec.core.url_to_fs(str(place))


@functools.cache
def _remember_no_listings() -> None:
    with contextlib.suppress(ImportError):  # etils may do with TensorFlow
        from fsspec.config import conf

        for scheme in ("gs", "gcs", "s3", "az"):
            conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)
