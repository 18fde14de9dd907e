"""A network over a whole set, batch by batch, in pieces that are kept where they should be."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from tqdm import tqdm

from ledit_jax.errors import DataError
from ledit_jax.files import PieceFolder
from ledit_jax.files.readers import Header, check_array, read_npz
from ledit_jax.progress import progress_bar

PIECE = 1000
"""Items whose numbers are handed on, and kept, together."""

Arrays = tuple[np.ndarray, ...]
"""What a network makes of items: arrays whose first axis goes over them."""


@runtime_checkable
class Items(Protocol):
    """A set of `count` images or prompts, in a fixed order."""

    count: int

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What tells this set from another one."""

    def batches(self, batch_size: int, start: int = 0) -> Iterator[np.ndarray]:
        """Items `start` to the last; the last batch may be smaller."""


class Extractor(ABC):
    """A network that makes arrays of float32 of batches of at most `batch_size`."""

    network: str
    """Under which name kept pieces have the digest."""
    unit: str
    """Of progress bars."""
    digest: str
    """Sixteen hexadecimal digits of the weights."""
    batch_size: int
    widths: Mapping[str, int]
    """The arrays by name, and how many numbers each has of an item."""

    @abstractmethod
    def __call__(self, batch: np.ndarray) -> Arrays:
        """The arrays of a batch, in the order of `widths`."""

    def pieces(
        self, items: Items, folder: Path | None = None, progress: str | None = None, *, overwrite: bool = False
    ) -> Iterator[Arrays]:
        """The arrays of a whole set, PIECE items at a time and in order.

        folder: where each piece is kept once it is done, and read from if it is there already. progress: the caption
        of a progress bar. overwrite: whether a folder that holds another set's is emptied; it raises OutputError else.
        """
        names = [f"{index:06d}.npz" for index in range(-(-items.count // PIECE))]
        kept, done = None, 0
        if folder:
            kept = PieceFolder.open(
                folder, "set.json", items.fingerprint | {self.network: self.digest}, overwrite=overwrite
            )
            done = names.index(missing[0]) if (missing := kept.missing(names)) else len(names)
        with progress_bar(progress, items.count, self.unit, disable=progress is None) as bar:
            for index, name in enumerate(names[:done]):
                arrays, wanted = kept.read(name, self._load), min(PIECE, items.count - index * PIECE)
                if len(arrays[0]) != wanted:
                    raise DataError(
                        f"{kept.path(name)} holds {len(arrays[0])} items, and {wanted} are needed: remove it"
                    )
                bar.update(len(arrays[0]))
                yield arrays
            for name, arrays in zip(names[done:], self._computed(items, done, bar), strict=True):
                if kept:
                    with kept.write(name) as file:
                        np.savez(file, **dict(zip(self.widths, arrays, strict=True)))
                yield arrays

    def _computed(self, items: Items, first_piece: int, bar: tqdm) -> Iterator[Arrays]:
        batches = items.batches(self.batch_size, first_piece * PIECE)
        waiting: list[Arrays] = []
        left = items.count - first_piece * PIECE
        for batch in batches:
            waiting.append(self(batch))
            bar.update(len(batch))
            left -= len(batch)
            held = sum(len(arrays[0]) for arrays in waiting)
            if held < PIECE and left:
                continue
            joined = tuple(np.concatenate(parts) for parts in zip(*waiting, strict=True))
            whole = held if not left else held // PIECE * PIECE
            for start in range(0, whole, PIECE):
                yield tuple(array[start : min(start + PIECE, whole)] for array in joined)
            waiting = [tuple(array[whole:] for array in joined)]

    def _load(self, path: Path) -> Arrays:
        def wanted(name: str, header: Header) -> bool:
            check_array(path, name, header, (None, self.widths[name]) if name in self.widths else (), "f")
            return name in self.widths

        arrays = read_npz(path, wanted)
        if arrays.keys() != self.widths.keys() or len({len(array) for array in arrays.values()}) > 1:
            raise DataError(f"{path} holds other arrays than {' and '.join(self.widths)} of the same items: remove it")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise DataError(f"{path} holds numbers that are not finite: remove it, and it is made again")
        return tuple(arrays[name] for name in self.widths)
