"""One trainer in a workdir at a time: a lock that its main process holds, and that says who."""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import jax

from ledit_jax.errors import OutputError
from ledit_jax.files import Place, is_bucket
from ledit_jax.files.bucket import reaching
from ledit_jax.files.refusals import gone, writing
from ledit_jax.parallel.processes import check_shared, gather_json, main_process_first
from ledit_jax.training.bucket_lock import BucketLock
from ledit_jax.weights.found import is_whole

logger = logging.getLogger(__name__)

LOCK_FILE = ".train.lock"


@contextlib.contextmanager
def claimed(workdir: Place) -> Iterator[Callable[[], None]]:
    """Makes `workdir`, and keeps other runs out of it. Called by all processes of a run.

    Yields what raises OutputError, in every process, for a workdir that is not as it was left: removed, moved, or in a
    bucket taken by another run. The operating system frees the lock when its holder ends, however that ends; for a
    bucket see `BucketLock`. Raises OutputError for a folder that cannot be written, that the processes do not share, or
    that another run is training in, naming its process.
    """
    _refuse_checkpoints(workdir)
    if is_bucket(workdir):
        lock = BucketLock(workdir / LOCK_FILE, lambda holder: _busy(workdir, holder), _is_alive)
        main_process_first(lock.take)
        try:
            yield lambda: _check_held(workdir, lock)
        finally:
            if jax.process_index() == 0:
                lock.release()
        return
    _make_writable(workdir)
    if jax.process_count() > 1:
        check_shared(workdir)
    held: list[TextIO] = []
    main_process_first(lambda: held.append(_take(workdir)))
    try:
        yield lambda: _check_there(workdir)
    finally:
        for file in held:
            file.truncate(0)
            file.close()


def _check_held(workdir: Place, lock: BucketLock) -> None:
    def check() -> None:
        if not lock.is_held():
            raise OutputError(f"workdir={workdir} was taken or removed while this run was silent: it ends here")

    main_process_first(check)


def _check_there(workdir: Path) -> None:
    if not all(gather_json((workdir / LOCK_FILE).is_file())):
        raise gone(workdir)


def _take(workdir: Path) -> TextIO:
    file = open(workdir / LOCK_FILE, "a+", encoding="utf-8")  # noqa: SIM115, it holds the lock
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except BlockingIOError:
        free = False
    except OSError:  # a file system without locks: what the file says decides
        free = not _is_alive(_read(file))
    holder = _read(file)
    if not free:
        file.close()
        raise OutputError(_busy(workdir, holder))
    if holder and holder.get("host") != socket.gethostname():
        # Freed, but not by an orderly end; or this file system does not tell one host of another's locks.
        logger.warning(
            f"{workdir / LOCK_FILE} was left by process {holder.get('pid')} on {holder.get('host')}, which seems to be "
            "gone: going on. If it still trains there, stop one of the two"
        )
    file.truncate(0)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with writing(workdir / LOCK_FILE):
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": now}, file)
        file.flush()
    return file


def _busy(workdir: Place, holder: dict[str, Any]) -> str:
    return (
        f"workdir={workdir} is being trained in by process {holder.get('pid', 'unknown')} on "
        f"{holder.get('host', 'an unknown host')}, since {holder.get('since', 'an unknown time')}: let it finish, "
        "stop it, or choose another workdir"
    )


def _read(file: TextIO) -> dict[str, Any]:
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except ValueError:  # empty: nobody, or somebody who has just taken it
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_alive(holder: dict[str, Any]) -> bool | None:
    """Whether it is another process of this host that runs; of other hosts nothing is known: None."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname():
        return None
    if not isinstance(pid, int) or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True


def _refuse_checkpoints(workdir: Place) -> None:
    with reaching(workdir, OutputError):
        steps = [path for path in workdir.iterdir() if path.name.isdecimal()] if workdir.is_dir() else []
        holds_checkpoints = any(map(is_whole, steps))
    if holds_checkpoints:
        raise OutputError(
            f"workdir={workdir} is a folder of checkpoints itself, which a run inside it would hide: choose another "
            "folder (init_from starts a run from a checkpoint)"
        )


def _make_writable(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".writable-{jax.process_index()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"workdir={workdir} cannot be written ({error.strerror}): choose another folder") from error
