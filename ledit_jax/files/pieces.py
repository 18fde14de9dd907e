"""Folders of pieces, each of which is whole or not there, with the settings that all of them belong to."""

import contextlib
import errno
import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ledit_jax.errors import OutputError
from ledit_jax.files.bucket import BUCKETS, Place, as_place, is_bucket, reaching
from ledit_jax.files.readers import read_json, reading
from ledit_jax.files.refusals import check_place, gone, writing
from ledit_jax.files.whole import whole_file, write_json

T = TypeVar("T")


def differences(there: Mapping[str, Any], here: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """The settings, nested ones as "model.width", that differ: "model.width=32 there, 16 here". Those in `free` may."""
    theirs, ours = dict(_flatten(there)), dict(_flatten(here))
    names = [name for name in theirs | ours if name not in free]
    pairs = [(name, theirs.get(name), ours.get(name)) for name in names]
    return [f"{name}={_short(their)} there, {_short(our)} here" for name, their, our in pairs if their != our]


class PieceFolder:
    """A folder of files that are made one by one, beside a JSON file of the settings that all of them belong to.

    Each piece is whole or not there. So a run that was killed goes on with those that are missing, and several
    processes can share them. The folder may be in a bucket, where a piece is an object.
    """

    def __init__(self, folder: Place, note: str, settings: Mapping[str, Any]):
        self.folder, self.settings, self._note = folder, settings, note

    @classmethod
    def find(cls, folder: Place, note: str) -> "PieceFolder | None":
        """The folder as it is; None where it has no `note`, which is the file of settings."""
        folder = as_place(folder)
        with reaching(folder):
            return cls(folder, note, read_json(folder / note)) if (folder / note).is_file() else None

    @classmethod
    def open(
        cls,
        folder: Place,
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
        folder = as_place(folder)
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

    def path(self, name: str) -> Place:
        """Where a piece lies, or will lie."""
        return self.folder / name

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the pieces that are not there."""
        if not is_bucket(self.folder):
            return [name for name in names if not self.path(name).exists()]
        there = {path.name for path in self.folder.iterdir()}  # one request, and not one for each
        return [name for name in names if name not in there]

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """A file to write a piece to, see `whole_file`."""
        with self.writing(), whole_file(self.path(name)) as file:
            yield file

    def read(self, name: str, load: Callable[[Path], T]) -> T:
        """`load` of a piece's path. Raises DataError where that fails as it does for damaged arrays."""
        with reading(self.path(name), "remove it, and it is made again"), _at_hand(self.path(name)) as path:
            return load(path)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around what writes a piece: errors as those of `check_there`, also where it goes away in between."""
        self.check_there()
        try:
            yield
        except OutputError as error:
            self.check_there()
            if error.errno == errno.ENOENT:  # somebody is removing it, and has not come to its note yet
                raise gone(self.folder) from error
            raise

    def check_there(self) -> None:
        """Raises OutputError for a folder that went away: what is written would be in another one, without the rest."""
        if not self.path(self._note).is_file():
            raise gone(self.folder)

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        if is_bucket(self.folder):
            self.folder.rmtree()
        else:
            shutil.rmtree(self.folder)


@contextlib.contextmanager
def _at_hand(path: Place) -> Iterator[Path]:
    """A file on this machine; of a bucket, a copy for as long as this lasts."""
    if not is_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="ledit_jax-") as folder:
        copy = Path(folder) / path.name
        with reaching(path), path.open("rb") as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target, 2**20)
        yield copy


def _begin(folder: Place, note: str, settings: Mapping[str, Any], pieces: str) -> None:
    check_place(folder, BUCKETS)
    if not is_bucket(folder):
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
