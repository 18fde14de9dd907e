"""Files that grow, for a folder in a bucket, which has none: they grow here, and are uploaded whole now and then."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ledit_jax.files.bucket import Place, is_bucket, put, reaching

UPLOAD_EVERY = 60.0
"""Seconds: what a kill costs, but for what comes with a checkpoint."""


class Mirror:
    """A folder of this machine for files of `place`; where that is on this machine, it is the folder."""

    def __init__(self, place: Place, wanted: Sequence[str] = ()):
        """wanted: names of files that are fetched first, if they are there. Raises DataError."""
        self.place, self.folder = place, place
        self._temporary, self._sent, self._last = None, {}, time.monotonic()
        if not is_bucket(place):
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="ledit_jax-")
        self.folder = Path(self._temporary.name) / place.name
        self.folder.mkdir()
        for name in wanted:
            with reaching(place):
                if (place / name).is_file():
                    (self.folder / name).write_bytes((place / name).read_bytes())

    def upload(self, at_once: bool = True) -> None:
        """Uploads the files that have changed, or only those of every so often. Raises OutputError."""
        if self._temporary is None or not (at_once or time.monotonic() - self._last > UPLOAD_EVERY):
            return
        self._last = time.monotonic()
        for file in sorted(path for path in self.folder.rglob("*") if path.is_file() and "wandb" not in path.parts):
            stat = file.stat()
            if self._sent.get(file) != (version := (stat.st_size, stat.st_mtime_ns)):
                put(file, self.place / file.relative_to(self.folder).as_posix())
                self._sent[file] = version

    def close(self) -> None:
        """Uploads what has changed, and removes the folder if it was for that."""
        try:
            self.upload()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()
