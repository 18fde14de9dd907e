"""Handwritten digits that ship with scikit-learn, drawn at any size: training data that needs no download."""

import functools

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from ledit_jax.errors import ConfigError

_HELD_OUT_EVERY = 5


@functools.cache
def _scans() -> tuple[UInt8[np.ndarray, "N 8 8"], Int[np.ndarray, " N"]]:
    """All 1,797 scans as bytes (ink bright on black) and their digits."""
    from sklearn.datasets import load_digits  # here, so that other sources do not need scikit-learn

    bunch = load_digits()
    return np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target


class Digits:
    """The UCI optical digits (scikit-learn's `load_digits`): 1,797 grey 8x8 scans of the digits 0 to 9.

    Each scan is resized from 8x8 to (height, width) with PIL's bicubic filter. `channels` is 1, or 3 for three
    equal ones. Of each digit's scans, in scikit-learn's order, every fifth is held out: "test" has 355 scans,
    "train" the other 1,442. `indices` are their places in `load_digits`, ascending, and `labels` their digits.
    """

    num_classes = 10

    def __init__(self, height: int, width: int, split: str, channels: int = 1):
        if split not in ("train", "test"):
            raise ConfigError(f"data.split={split!r} is unknown to the digits: use train or test")
        scans, labels = _scans()
        occurrence = np.zeros(len(labels), np.int64)
        for digit in range(10):
            occurrence[labels == digit] = np.arange(np.sum(labels == digit))
        held_out = occurrence % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
        self.indices = np.flatnonzero(held_out if split == "test" else ~held_out)
        self.labels = labels[self.indices]
        self._scans = scans[self.indices]
        self._height, self._width, self._channels = height, width, channels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        scan = Image.fromarray(self._scans[index])
        image = np.asarray(scan.resize((self._width, self._height), Image.Resampling.BICUBIC))
        return {"image": np.repeat(image[..., None], self._channels, axis=-1), "label": int(self.labels[index])}
