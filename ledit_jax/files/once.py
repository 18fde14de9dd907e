"""Things that are made once: by one process, whole, and for all that come later."""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from ledit_jax.files.refusals import writing
from ledit_jax.files.whole import written_aside

logger = logging.getLogger(__name__)


def made_once(place: Path, make: Callable[[Path], None]) -> Path:
    """The folder `place`, made by `make(aside)` unless it is there. Processes that start together wait for the first.

    Raises OutputError for what the operating system refuses; nothing half-made is left.
    """
    if place.is_dir():
        return place
    with alone(place) as is_alone:
        if not place.is_dir():
            mark = "partial" if is_alone else f"{socket.gethostname()}-{os.getpid()}"
            with written_aside(place, mark) as aside:
                make(aside)
    return place


@contextlib.contextmanager
def alone(place: Path) -> Iterator[bool]:
    """Keeps other processes of this machine out of `place`: they wait. Whether it could; some file systems cannot.

    The system frees the lock, which lies beside `place`, when its holder ends.
    """
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        file = open(place.with_name(f".lock-{place.name}"), "a+")  # noqa: SIM115, it holds the lock
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process makes %s: waiting for it", place)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        yield True
