"""A function that worker processes run, sent to them so that whatever goes wrong there is told."""

import pickle
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle

from ledit_jax.errors import DataError, LEDiTError, named


class Portable:
    """A function, the same to call. Pickled, it lies in a file, which the copy reads when it is first called.

    In a file because a process that ends before it has read what it is sent stops the sender for ever, where that is
    more than a pipe holds; and a million file names are. The file lives as long as this object.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._path: Path | None = None
        self._lock = threading.Lock()  # workers are started by a thread each

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        with self._lock:
            self._path = self._path or self._write()
        return _Copy, (self._path,)

    def _write(self) -> Path:
        try:
            packed = cloudpickle.dumps(self._function)
        except Exception as error:
            raise DataError(
                f"the source cannot be sent to worker processes ({named(error)}): make it picklable, or set "
                "data.num_workers=0"
            ) from error
        folder = tempfile.mkdtemp(prefix="ledit_jax-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / "function"
        path.write_bytes(packed)
        return path


class _Copy:
    """In a worker. Errors that cannot be pickled would be lost on the way back, and waited for without end."""

    def __init__(self, path: Path):
        self._path = path
        self._function: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._function is None:
            try:
                self._function = pickle.loads(self._path.read_bytes())
            except BaseException as error:  # a module may call sys.exit as it is imported
                raise DataError(
                    f"a worker process cannot unpack the source ({named(error)}): it has to be importable there, "
                    "or set data.num_workers=0"
                ) from None
        try:
            return self._function(*arguments)
        except BaseException as error:
            if isinstance(error, LEDiTError) or _survives(error):
                raise
            raise DataError(f"a worker process failed to read ({named(error)})") from None


def _survives(error: BaseException) -> bool:
    try:
        return isinstance(error, Exception) and type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False
