"""What a source of training data is, and what becomes of records that cannot be read."""

import logging
from typing import Any, Protocol, runtime_checkable

from ledit_jax.errors import DataError

MIN_READ_TO_JUDGE = 100
"""Reads before the share of unreadable records is judged; also the most to fail in a row."""
_LOG = logging.getLogger(__name__)


class UnreadableRecord(Exception):
    """A record that exists and cannot be read. The message names it and says why; it is skipped."""


class BadRecords:
    """Counts and logs records that were skipped, each once, and stops when they are too many.

    Messages are what UnreadableRecord said.
    """

    def __init__(self, max_share: float):
        self.count = 0
        self._max_share = max_share
        self._logged: set[str] = set()

    def add(self, messages: list[str], read: int) -> None:
        """`read`: records read so far without the bad ones.

        Raises DataError when, of 100 or more reads, a larger share than `max_share` failed.
        """
        for message in messages:
            if message not in self._logged:
                self._logged.add(message)
                _LOG.warning("skipped a record that cannot be read: %s", message)
        self.count += len(messages)
        read += self.count
        if messages and read >= MIN_READ_TO_JUDGE and self.count > self._max_share * read:
            raise DataError(
                f"data.max_bad_share={self._max_share} is exceeded: {self.count} of {read} records could "
                f"not be read, the last is {messages[-1]}: repair the data or raise the share"
            )


@runtime_checkable
class Source(Protocol):
    """Random access to records: `len(source)`, `source[i]` for 0 <= i < len(source), picklable.

    A record of an image has "image": uint8 [h, w, C]; sizes may differ between records. A record of latents has
    "mean", "logvar", "mean_flip" and "logvar_flip": float32 [H, W, C] (see `ledit_jax.data.latents`). Either has what
    conditions the network as well, such as "label": int.
    `source[i]` raises IndexError outside the range and UnreadableRecord for a record that cannot be read.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@runtime_checkable
class LabelledSource(Source, Protocol):
    """A source whose records have a "label" of 0 .. num_classes - 1."""

    @property
    def num_classes(self) -> int: ...
