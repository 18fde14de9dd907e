"""The progress bar of everything but training, which reports by steps (training/metrics.py)."""

import sys

from tqdm import tqdm


def progress_bar(caption: str | None, total: int, unit: str, done: int = 0, disable: bool = False) -> tqdm:
    """A bar over `total` units, of which `done` were there before. A log, where every refresh is a line, gets few."""
    is_watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    every = 0.1 if is_watched else 10.0  # seconds
    return tqdm(desc=caption, total=total, initial=done, unit=unit, mininterval=every, disable=disable)
