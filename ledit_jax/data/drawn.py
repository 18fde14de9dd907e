"""What the sources that are drawn have in common: scenes that follow from (split, index) alone, at any resolution."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ledit_jax.data.polygons import polygon_coverage
from ledit_jax.errors import ConfigError

_LENGTHS = {"train": 20_000, "test": 2_000}

Contours = list[Float[np.ndarray, "_ 2"]]
"""Closed outlines by their corners (x, y), y downwards, as `polygon_coverage` takes them."""


class DrawnScenes:
    """Two endless sequences of scenes, "train" and "test", on a canvas of height x width pixels.

    A scene is drawn from (split, index) alone and is relative to the canvas, so that index i is one scene at every
    size. `length` is how many scenes a sequence is cut to: 20,000 for "train" and 2,000 for "test" unless given.
    Raises ConfigError for any other split.
    """

    noun: ClassVar[str]
    """What messages call one record."""

    def __init__(self, height: int, width: int, split: str, length: int | None = None):
        if split not in _LENGTHS:
            raise ConfigError(f"data.split={split!r} is unknown to the {self.noun}s: use {' or '.join(_LENGTHS)}")
        self._height, self._width, self._split = height, width, split
        self._length = _LENGTHS[split] if length is None else length

    def __len__(self) -> int:
        return self._length

    def _rng(self, index: int) -> np.random.Generator:
        """What scene `index` is drawn with. Raises IndexError beyond the length."""
        if not 0 <= index < self._length:
            raise IndexError(f"{self.noun} {index} of {self._length}")
        return np.random.default_rng((tuple(_LENGTHS).index(self._split), index))


class DrawnFigures(DrawnScenes, ABC):
    """White figures on black, one to an image: {"image": uint8 [height, width, channels], "label": index % 10}.

    On a canvas that is not square a scene is stretched with it. `channels` is 1, or 3 for three equal ones.
    """

    num_classes = 10

    def __init__(self, height: int, width: int, split: str, channels: int = 1, length: int | None = None):
        super().__init__(height, width, split, length)
        self._channels = channels

    def __getitem__(self, index: int) -> dict:
        coverage = polygon_coverage(self.contours(index), self._height, self._width)
        image = np.round(255 * coverage).astype(np.uint8)
        return {"image": np.repeat(image[..., None], self._channels, axis=-1), "label": index % self.num_classes}

    def contours(self, index: int) -> Contours:
        """Outlines of figure `index` on the canvas, which is the unit square."""
        return self._figure(index % self.num_classes, self._rng(index))

    @abstractmethod
    def _figure(self, label: int, rng: np.random.Generator) -> Contours:
        """A figure of class `label`, with all that is left to chance drawn from `rng`."""
