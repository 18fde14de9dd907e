"""A run that goes on with another number of processes: what is left of the epoch is shared out anew.

Each share of the records is a sequence without an end: first its part of what was left when the run moved, then epoch
after epoch. So every record comes once an epoch, also in the one in which the number changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grain
import numpy as np
from jaxtyping import Int

# Records of an endless stream: Grain's own infinity overflows the length of a batched stream.
_FOREVER = 2**50

Indices = Int[np.ndarray, "_"]


@dataclass(frozen=True)
class Leg:
    """A part of a run with one number of shares."""

    shares: int
    batch_size: int
    """Of each share."""
    batches: int
    """That were taken."""


class Shuffles:
    """The random order of the records, and the seeds of what else is drawn, of each leg of a run."""

    def __init__(self, num_records: int, seed: int, lineage: Sequence[int] = ()):
        self.num_records, self._seed, self._lineage = num_records, seed, tuple(lineage)

    def seeds(self, legs: Sequence[Leg], share: int) -> tuple[int, int]:
        """(of the order, of flips and noise) after these legs.

        Hashed, because Grain shuffles epoch e by seed + e: neighbouring seeds would share their epochs. The share
        enters so that no two draw the same noise, and the legs so that none is drawn again.
        """
        moves = [number for leg in legs for number in (leg.shares, leg.batches)]
        sequence = np.random.SeedSequence((self._seed, *self._lineage, *moves, share))
        return tuple(int(state) for state in sequence.generate_state(2))

    def left_over(self, legs: Sequence[Leg]) -> Indices:
        """The records of the epoch in which the last leg ended that no share has had, in random order."""
        if not legs:
            return np.zeros(0, int)
        *before, leg = legs
        extra, length, taken = self.left_over(before), self.num_records // leg.shares, leg.batch_size * leg.batches
        heads = [len(extra[share :: leg.shares]) for share in range(leg.shares)]
        # The shares end an epoch at most one record apart: what some have begun, all of them are to end.
        epochs = max(max(0, -(-(taken - head) // length)) for head in heads)
        left = [
            self._records(before, extra, leg.shares, share, taken, head + epochs * length)
            for share, head in enumerate(heads)
        ]
        order_seed, _ = self.seeds(legs, 0)
        return np.random.default_rng(order_seed).permutation(np.concatenate(left))

    def _records(self, legs: Sequence[Leg], extra: Indices, shares: int, share: int, start: int, stop: int) -> Indices:
        own, length = extra[share::shares], self.num_records // shares
        places = shuffled(length, len(own), self.seeds(legs, share)[0])
        positions = np.asarray([places[i] for i in range(start, stop)], int)
        own_places = np.concatenate([share + shares * np.arange(length), own])
        return own_places[positions]


def shuffled(length: int, extra: int, seed: int) -> grain.MapDataset:
    """Positions without an end: length, length + 1, ... of `extra` records, then the epochs' 0 .. length - 1."""
    epochs = grain.MapDataset.range(length).shuffle(seed=seed).repeat(_FOREVER // length)
    return (
        epochs if not extra else grain.MapDataset.concatenate([grain.MapDataset.range(length, length + extra), epochs])
    )
