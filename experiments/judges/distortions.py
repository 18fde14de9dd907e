"""What goes wrong in images beyond the training size, made of real images. The figures have to see each of these."""

from collections.abc import Callable

import numpy as np
import scipy.ndimage
from jaxtyping import UInt8

Images = UInt8[np.ndarray, "N h w C"]


def streaked(images: Images) -> Images:
    """Every third column at a third of its brightness: the streaks of a stretched table."""
    dark = np.where(np.arange(images.shape[2]) % 3 == 0, 1 / 3, 1.0)[:, None]
    return (images * dark).round().astype(np.uint8)


def doubled(images: Images) -> Images:
    """Each stroke a second time, a sixth of the width to the right."""
    right = max(1, images.shape[2] // 6)
    moved = np.zeros_like(images)
    moved[:, :, right:] = images[:, :, :-right]
    return np.maximum(images, moved)


def tiled(images: Images) -> Images:
    """Four small copies of the image."""
    return np.tile(_halved(images), (1, 2, 2, 1))


def in_a_corner(images: Images) -> Images:
    """The image at half its size in the upper left, and as dark as its darkest around it."""
    small = _halved(images)
    corner = np.full_like(images, 0) + images.min(axis=(1, 2), keepdims=True)
    corner[:, : small.shape[1], : small.shape[2]] = small
    return corner


def rolled(images: Images) -> Images:
    """Moved by half of both sides, around the edges: all parts are right, and none is in its place."""
    return np.roll(images, (images.shape[1] // 2, images.shape[2] // 2), axis=(1, 2))


def blurred(images: Images) -> Images:
    """A Gaussian of a sixteenth of the shorter side."""
    sigma = min(images.shape[1:3]) / 16
    return scipy.ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0)).round().astype(np.uint8)


def _halved(images: Images) -> Images:
    """Half the size, over both sides even."""
    N, h, w, C = images.shape
    return images.reshape(N, h // 2, 2, w // 2, 2, C).mean(axis=(2, 4)).round().astype(np.uint8)


DISTORTIONS: dict[str, Callable[[Images], Images]] = {
    "streaked": streaked,
    "doubled": doubled,
    "tiled": tiled,
    "in a corner": in_a_corner,
    "rolled": rolled,
    "blurred": blurred,
}
