"""Images with the classes they show: generated ones, and the real ones of digits, glyphs and shapes at any size."""

import functools
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from jaxtyping import Integer, UInt8

from experiments.sizes import Size
from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data.catalog import make_source
from ledit_jax.data.scenes import Scenes
from ledit_jax.errors import ConfigError

DRAWN = ("digits", "glyphs", "shapes")
"""Sources whose images can be had at any size."""
MAX_REAL = 1500
"""Most real images taken from a split: all of the digits, and enough of the others."""


@dataclass(frozen=True)
class Samples:
    """Images of one size and their labels: of generated ones, the classes they were asked for.

    Of scenes the label is the number of a held-out one, whose caption was asked for.
    """

    images: UInt8[np.ndarray, "N h w C"]
    labels: Integer[np.ndarray, " N"]

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.images.shape[1], self.images.shape[2]


@functools.cache  # comparing methods needs the same ones again and again, and they are small
def real_images(source: str, height: int, width: int, split: str, count: int | None = None) -> Samples:
    """The first `count` real images of a source of DRAWN, grey [N, height, width, 1], with their labels.

    There are MAX_REAL at most, and so many unless `count` says how many.
    """
    if source not in DRAWN:
        raise ConfigError(f"data.source={source} cannot be drawn at any size: use {', '.join(DRAWN)}")
    data = DataConfig(source=source, split=split, image_height=height, image_width=width, image_channels=1)
    images = make_source(data, AutoencoderConfig())
    most = min(len(images), MAX_REAL)
    records = [images[index] for index in range(most if count is None else min(count, most))]
    return Samples(np.stack([r["image"] for r in records]), np.array([r["label"] for r in records]))


def held_out_captions(count: int) -> list[str]:
    """What the first scenes of the test split show, in its plainest words."""
    source = Scenes(1, 1, "test", count)
    return [source.request(index).captions[0] for index in range(count)]


def real_scenes(height: int, width: int, count: int) -> Samples:
    """The first scenes of the test split."""
    source = Scenes(height, width, "test", count)
    return Samples(np.stack([source[index]["image"] for index in range(count)]), np.arange(count))


def count_objects(images: UInt8[np.ndarray, "B h w C"]) -> float:
    """Mean number of connected regions (over sides and corners) brighter than half of full intensity."""
    return float(np.mean([scipy.ndimage.label(i > 127.5, np.ones((3, 3)))[1] for i in images.mean(axis=-1)]))
