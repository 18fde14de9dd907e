"""Whole files, and folders of pieces: what a kill or a power cut leaves is whole, or not there at all."""

import contextlib
import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ledit_jax.errors import OutputError
from ledit_jax.files.readers import read_json, reading
from ledit_jax.files.refusals import check_place, gone, writing

T = TypeVar("T")


@contextlib.contextmanager
def written_aside(path: Path, mark: str = "partial") -> Iterator[Path]:
    """Yields a place beside `path` to write a file or a folder to; it takes the name `path` when the block is done.

    What is there is on the disk before it takes the name, and replaces what has it. The place has the suffix of
    `path`, which some libraries go by. An exception leaves nothing behind, and what a kill left is removed by the next
    writer: so there is one writer at a time, unless each has a `mark` of its own. Raises OutputError for what the
    operating system refuses.
    """
    check_place(path)
    aside = path.absolute().with_name(f".{mark}-{path.absolute().name}")
    try:
        with writing(path):
            _make_folder(aside.parent)
            _remove(aside)
            yield aside
            settle(aside, path.absolute())
    finally:
        with contextlib.suppress(OSError):
            _remove(aside)


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
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, by `written_aside`."""
    with written_aside(path) as aside, open(aside, "wb") as file:
        yield file


def write_whole(path: Path, text: str) -> None:
    """Writes a text by `written_aside`; several processes may write the same file at once."""
    with written_aside(path, f"{socket.gethostname()}-{os.getpid()}") as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """`write_whole` of JSON, indented."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


def check_writable(path: Path) -> None:
    """Makes the folder of a file that is to be written. Raises OutputError where it cannot be."""
    with writing(path):
        _make_folder(path.absolute().parent)
    if path.is_dir():
        raise OutputError(f"{path} cannot be written (it is a folder): choose another place")


def recipe_path(samples: str | Path) -> Path:
    """Where the recipe of samples lies: x.npz and a folder x have x.recipe.json beside them."""
    path = Path(samples)
    return path.with_name(f"{path.name.removesuffix('.npz')}.recipe.json")


def differences(there: Mapping[str, Any], here: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """The settings, nested ones as "model.width", that differ: "model.width=32 there, 16 here". Those in `free` may."""
    theirs, ours = dict(_flatten(there)), dict(_flatten(here))
    names = [name for name in theirs | ours if name not in free]
    pairs = [(name, theirs.get(name), ours.get(name)) for name in names]
    return [f"{name}={_short(their)} there, {_short(our)} here" for name, their, our in pairs if their != our]


class PieceFolder:
    """A folder of files that are made one by one, beside a JSON file of the settings that all of them belong to.

    Each piece is whole or not there. So a run that was killed goes on with those that are missing, and several
    processes can share them.
    """

    def __init__(self, folder: Path, note: str, settings: Mapping[str, Any]):
        self.folder, self.settings, self._note = folder, settings, note

    @classmethod
    def find(cls, folder: Path, note: str) -> "PieceFolder | None":
        """The folder as it is; None where it has no `note`, which is the file of settings."""
        return cls(folder, note, read_json(folder / note)) if (folder / note).is_file() else None

    @classmethod
    def open(
        cls,
        folder: Path,
        note: str,
        settings: Mapping[str, Any],
        *,
        free: Collection[str] = (),
        pieces: str = "*",
        overwrite: bool = False,
    ) -> "PieceFolder":
        """The folder that was begun with these settings, or a new one.

        free: settings that may differ; `self.settings` are those in the folder. pieces: a glob; a folder with such
        files and without a note is somebody else's. overwrite: whether to begin anew where settings differ. Raises
        OutputError for a folder that holds something else, naming the settings that differ, or cannot be written.
        """
        settings = json.loads(json.dumps(settings))  # as it reads back: tuples are lists
        found = cls.find(folder, note)
        is_ours = found and found.settings.keys() == settings.keys()
        if overwrite and is_ours and differences(found.settings, settings, free):
            found.remove()
            found = None
        if found is None:
            _begin(folder, note, settings, pieces)
            found = cls.find(folder, note)  # which another process may have begun at the same moment
        differ = differences(found.settings, settings, free)
        if differ:
            named = "; ".join(differ[:3]) + (f"; and {len(differ) - 3} more" if len(differ) > 3 else "")
            raise OutputError(
                f"{folder} was begun with other settings ({named}): give the same as then, choose another place, or "
                "remove it"
            )
        return found

    def path(self, name: str) -> Path:
        """Where a piece lies, or will lie."""
        return self.folder / name

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the pieces that are not there."""
        return [name for name in names if not self.path(name).exists()]

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """A file to write a piece to, see `whole_file`."""
        with self.writing(), whole_file(self.path(name)) as file:
            yield file

    def read(self, name: str, load: Callable[[Path], T]) -> T:
        """`load` of a piece's path. Raises DataError where that fails as it does for damaged arrays."""
        with reading(self.path(name), "remove it, and it is made again"):
            return load(self.path(name))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around what writes a piece: errors as those of `check_there`, also where it goes away in between."""
        self.check_there()
        try:
            yield
        except OutputError:
            self.check_there()
            raise

    def check_there(self) -> None:
        """Raises OutputError for a folder that went away: what is written would be in another one, without the rest."""
        if not self.path(self._note).is_file():
            raise gone(self.folder)

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        shutil.rmtree(self.folder)


def _begin(folder: Path, note: str, settings: Mapping[str, Any], pieces: str) -> None:
    check_place(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if any(path.name != note and not path.name.startswith(".") for path in folder.glob(pieces)):
        raise OutputError(f"{folder} holds other things, and no {note}: choose another place, or move them away")
    write_json(folder / note, settings)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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


def flush_tree(folder: Path) -> None:
    """Waits until all files of a folder, and their names, are on the disk; those of cloud storage are already."""
    for place, _, files in os.walk(folder):
        for path in (*(Path(place, file) for file in files), Path(place)):
            with contextlib.suppress(OSError):  # some file systems do not flush folders
                _flush(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
