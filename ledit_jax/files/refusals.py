"""What the operating system refuses, as one line that names the place and the free space."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from ledit_jax.errors import LEDiTError, OutputError, one_line
from ledit_jax.files.bucket import Place, is_bucket

REFUSALS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT),
    *(errno.ESTALE, errno.ENOTCONN),  # of mounts that went away
)
"""Numbers of errors that the operating system refuses a place with."""


@contextlib.contextmanager
def writing(path: Place) -> Iterator[None]:
    """Raises an OutputError, naming `path` and the free space, for what the operating system refuses in the block."""
    try:
        yield
    except LEDiTError:
        raise
    except Exception as error:
        refusal = find_refusal(error)
        if refusal is None and is_bucket(path):  # the libraries that write there have errors of many kinds
            refusal = OSError(errno.EIO, one_line(error)[:200])
        if refusal is None:
            raise
        raise _refused(path, refusal) from error


def check_place(folder: str | Place, buckets: Collection[str] = ()) -> None:
    """Raises OutputError for an empty name, for the root of all folders, where a slip of the hand leaves a run, and for
    an address, but in `buckets`: what such addresses begin with."""
    if not isinstance(folder, (str, os.PathLike)) or not str(folder).strip():
        raise OutputError(f"{folder!r} is no name of a folder: give one")
    if is_bucket(folder) and str(folder).partition(":")[0] in buckets:
        return
    if os.path.abspath(folder) == os.path.sep:
        raise OutputError(f"{folder} is the root of the disk: give a folder in it")
    if fault := unmounted(folder):
        raise OutputError(fault)


def unmounted(place: str | Place) -> str | None:
    """What to say of an address, such as gs://bucket/folder, where a place on this machine is needed; None for that."""
    match = re.match(r"(gs|s3|az|abfss?|https?):/+", str(place))
    if match is None:
        return None
    return (
        f"{match[1]}://{str(place)[match.end() :]:.200} is an address, and no folder here: mount the bucket (gcsfuse, "
        "mount-s3, ...) and give the folder in it, or copy it"
    )


def free_bytes(path: Place) -> int:
    """Of the disk that a place is on; of one in a bucket, that of temporary files, through which all goes there."""
    path = Path(tempfile.gettempdir() if is_bucket(path) else path).absolute()
    there = next((folder for folder in (path, *path.parents) if os.path.exists(folder)), Path("/"))
    return shutil.disk_usage(there).free


def full_disk(message: str) -> OutputError:
    """The error for a disk that would run full."""
    error = OutputError(message)
    error.errno = errno.ENOSPC
    return error


def gone(path: Place) -> OutputError:
    """The error for a folder that was there, and is no more."""
    error = OutputError(
        f"{path} was removed, moved or replaced while it was written to: put it back, and the same command goes on, or "
        "remove what is left of it to start anew"
    )
    error.errno = errno.EIO
    return error


def find_refusal(error: BaseException | None) -> OSError | None:
    """What the operating system refused, behind an error; libraries of C++ say it in errors of kinds of their own."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        text = str(error)
        for number in REFUSALS:
            if os.strerror(number) in text:
                return OSError(number, os.strerror(number))
        error = error.__cause__
    return None


def _refused(path: Place, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    if error.filename and str(error.filename) != str(path):
        reason += f": {error.filename}"
    refused = OutputError(f"{path} cannot be written ({reason}): choose another place")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = f"{free_bytes(path) / 2**20:,.0f} MiB are free there"
        refused = OutputError(
            f"{path} cannot be written ({reason}; {free}): make room and run it again, or choose another place"
        )
    refused.errno = error.errno
    return refused
