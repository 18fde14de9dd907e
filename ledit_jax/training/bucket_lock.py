"""One trainer in a workdir in a bucket at a time: an object with its name, and one beside it that it renews.

A bucket does not free the lock of a holder that was killed; its silence tells. Where the store has no preconditions,
two that start within the same moment may both be let in. So the holder looks again before each checkpoint, and whoever
finds another's name there ends, without writing.
"""

import datetime
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from ledit_jax.errors import LEDiTError, OutputError
from ledit_jax.files import Place, write_json
from ledit_jax.files.bucket import put_new, reaching

Holder = dict[str, Any]
"""What the object says: `pid`, `host`, `since`, and a token of the run's own."""
logger = logging.getLogger(__name__)

BEAT = 15.0
"""Seconds between renewals; three of them without one, and the holder counts as gone."""


class BucketLock:
    """Held from `take` to `release`. Times of several hosts are never compared: only whether the object changes."""

    def __init__(self, place: Place, busy: Callable[[Holder], str], is_alive: Callable[[Holder], bool | None]):
        """busy: the message where another run holds it. is_alive: whether its process runs; None if nobody knows."""
        self._place, self._busy, self._is_alive = place, busy, is_alive
        self._beat = place.with_name(f"{place.name}.beat")  # apart, so that no renewal writes over another's name
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._own = {"pid": os.getpid(), "host": socket.gethostname(), "since": now, "token": uuid.uuid4().hex}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def take(self) -> None:
        """Raises OutputError where another run holds it."""
        holder = self._read()
        if holder and self._is_alive(holder):
            raise OutputError(self._busy(holder))
        if holder:
            if self._is_alive(holder) is None:
                self._wait_for_silence(holder)
            with reaching(self._place, OutputError):
                self._place.unlink(missing_ok=True)
        if not put_new(json.dumps(self._own), self._place) or not self.is_held():
            raise OutputError(self._busy(self._read()))
        self._thread.start()

    def is_held(self) -> bool:
        """Whether the object has this run's name; another's is there if it was silent for too long."""
        return self._read().get("token") == self._own["token"]

    def release(self) -> None:
        """Frees it, unless it is another's by now."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(BEAT)
        try:
            if self.is_held():
                self._beat.unlink(missing_ok=True)
                self._place.unlink(missing_ok=True)
        except Exception as error:  # what is left counts as left, in a while
            logger.warning("%s was not removed: %s", self._place, error)

    def _wait_for_silence(self, holder: Holder) -> None:
        logger.info("%s (waiting %.0f s to see whether it still runs)", self._busy(holder), 3 * BEAT)
        before, end = self._read(self._beat), time.monotonic() + 3 * BEAT
        while time.monotonic() < end:
            time.sleep(BEAT / 3)
            now = self._read()
            if not now:
                return
            if now != holder or self._read(self._beat) != before:
                raise OutputError(self._busy(now))

    def _renew(self) -> None:
        beats = 0
        while not self._ended.wait(BEAT):
            try:
                if not self.is_held():
                    return
                beats += 1
                write_json(self._beat, {"token": self._own["token"], "beats": beats})
            except LEDiTError as error:  # the network may come back; `is_held` tells whether it did in time
                logger.warning("%s was not renewed: %s", self._place, error)

    def _read(self, place: Place | None = None) -> Holder:
        """Who holds it, or what another object says; empty for nobody. Raises OutputError."""
        place = place or self._place
        with reaching(place, OutputError):
            if not place.exists():
                return {}
            try:
                holder = json.loads(place.read_text())
            except (ValueError, FileNotFoundError):
                return {}
        return holder if isinstance(holder, dict) else {}
