"""Whole files and folders: what a kill or a power cut leaves is whole, or not there at all."""

import contextlib
import errno
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ledit_jax.errors import OutputError
from ledit_jax.files.bucket import BUCKETS, MARKS, Place, as_place, is_bucket, open_bucket, put
from ledit_jax.files.refusals import check_place, writing


@contextlib.contextmanager
def written_aside(path: Place, mark: str = "partial") -> Iterator[Path]:
    """Yields a place beside `path` to write a file or a folder to; it takes the name `path` when the block is done.

    What is there is on the disk before it takes the name, and replaces what has it. The place has the suffix of
    `path`, which some libraries go by. An exception leaves nothing behind, and what a kill left is removed by the next
    writer: so there is one writer at a time, unless each has a `mark` of its own. For a bucket, the place is in a
    temporary folder, and uploaded: a file is one object, and of a folder one file comes after the other. Raises
    OutputError for what the operating system or the store refuses.
    """
    check_place(path, BUCKETS)
    if is_bucket(path):
        with tempfile.TemporaryDirectory(prefix="ledit_jax-") as folder, writing(Path(folder)):
            yield Path(folder) / path.name
            put(Path(folder) / path.name, as_place(path))
        return
    aside = path.absolute().with_name(f".{mark}-{path.absolute().name}")
    try:
        with writing(path):
            _make_folder(aside.parent)
            _remove(aside)
            yield aside
            settle(aside, path.absolute())
    finally:
        _remove_for_good(aside)


def settle(aside: Path, path: Path) -> None:
    """Gives a finished file or folder, once it is on the disk, the name `path` beside it; replaces what has that."""
    if aside.is_dir():
        os.sync()  # once for all: it may hold 50,000 images, and waiting for each of them takes minutes
    else:
        _flush(aside)
    old = path.with_name(f".old-{path.name}")
    if path.is_dir():  # a folder is not replaced in one move, as a file is
        _remove(old)
        os.replace(path, old)
    try:
        os.replace(aside, path)
    except OSError:
        if old.exists():
            os.replace(old, path)
        raise
    _remove(old)
    with contextlib.suppress(OSError):  # some file systems do not flush folders
        _flush(path.parent)


@contextlib.contextmanager
def whole_file(path: Place) -> Iterator[BinaryIO]:
    """A file to write to, by `written_aside`."""
    with written_aside(path) as aside, open(aside, "wb") as file:
        yield file


def write_whole(path: Place, text: str) -> None:
    """Writes a text by `written_aside`; several processes may write the same file at once."""
    with written_aside(path, f"{socket.gethostname()}-{os.getpid()}") as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Place, values: Any) -> None:
    """`write_whole` of JSON, indented."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


def check_writable(path: Place) -> None:
    """Makes the folder of a file that is to be written; a bucket has none. Raises OutputError where it cannot be."""
    check_place(path, BUCKETS)
    if is_bucket(path):
        return
    with writing(path):
        _make_folder(path.absolute().parent)
    if path.is_dir():
        raise OutputError(f"{path} cannot be written (it is a folder): choose another place")


def recipe_path(samples: str | Place) -> Place:
    """Where the recipe of samples lies: x.npz and a folder x have x.recipe.json beside them."""
    path = as_place(samples)
    return path.with_name(f"{path.name.removesuffix('.npz')}.recipe.json")


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        number = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(number, os.strerror(number))


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Place) -> None:
    """Waits until all files of a folder, and their names, are on the disk; those of a bucket are there already."""
    if is_bucket(folder):
        return
    for place, _, files in os.walk(folder):
        for path in (*(Path(place, file) for file in files), Path(place)):
            with contextlib.suppress(OSError):  # some file systems do not flush folders
                _flush(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_for_good(path: Path) -> None:
    """Also where threads beside the one that failed put files there for another moment, as Orbax's do."""
    for _ in range(20):
        if not os.path.lexists(path):
            return
        with contextlib.suppress(OSError):
            _remove(path)
        time.sleep(0.05)


def move_folder(folder: Place, target: Place) -> None:
    """Moves a checkpoint's folder, in one step on a disk. In a bucket it is copied, loses its mark, and is removed."""
    if not is_bucket(folder):
        os.rename(folder, target)
        return
    with writing(target):
        system, source = open_bucket(as_place(folder))
        system.copy(source, open_bucket(as_place(target))[1], recursive=True)
        for mark in MARKS:
            (folder / mark).unlink(missing_ok=True)
        folder.rmtree(missing_ok=True)
