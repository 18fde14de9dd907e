"""Ten solid shapes at random places, sizes and angles, drawn exactly at any resolution.

One index is one scene whatever the resolution, so a model trained at one size can be judged at another.
"""

import numpy as np
from jaxtyping import Float

from ledit_jax.data.polygons import polygon_coverage
from ledit_jax.errors import ConfigError

_LENGTHS = {"train": 20_000, "test": 2_000}
_RADIUS = (0.25, 0.38)
"""Radius of the circle around a shape, in canvas units."""
_MARGIN = 0.02


def _regular(corners: int, radii: tuple[float, ...] = (1.0,)) -> np.ndarray:
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.resize(radii, corners)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _blunted(corners: np.ndarray, share: float) -> np.ndarray:
    """Each corner cut off, taking `share` of both edges: a sharp tip's last pixel can hang on by its corner only."""
    before, after = np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0)
    return np.stack([corners + share * (before - corners), corners + share * (after - corners)], 1).reshape(-1, 2)


def _normalised(points: list | np.ndarray) -> np.ndarray:
    """Corners moved and scaled so that their bounding box is centred and the farthest corner has radius 1."""
    corners = np.array(points, np.float64)
    corners -= (corners.min(0) + corners.max(0)) / 2
    return corners / np.linalg.norm(corners, axis=-1).max()


_HALF_CIRCLE = [(np.cos(a), np.sin(a)) for a in np.linspace(0, np.pi, 65)]
_PLUS = [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3), (1, 2), (0, 2), (0, 1), (1, 1)]

# Label -> corners (x, y) of a simple polygon within the unit circle; a disc is a polygon of 128 corners.
POLYGONS = {
    "disc": _regular(128),
    "half_disc": _normalised(_HALF_CIRCLE),
    "square": _regular(4),
    "bar": _normalised([(0, 0), (3, 0), (3, 1), (0, 1)]),
    "triangle": _normalised(_blunted(_regular(3), 0.06)),
    "plus": _normalised(_PLUS),
    "star": _normalised(_blunted(_regular(10, (1.0, 0.55)), 0.15)),
    "ell": _normalised([(0, 0), (2, 0), (2, 1), (1, 1), (1, 3), (0, 3)]),
    "tee": _normalised([(0, 0), (3, 0), (3, 1), (2, 1), (2, 2), (1, 2), (1, 1), (0, 1)]),
    "zed": _normalised([(0, 0), (2, 0), (2, 1), (3, 1), (3, 2), (1, 2), (1, 1), (0, 1)]),
}
CLASS_NAMES = tuple(POLYGONS)


class Shapes:
    """White shapes on black, one to an image: `CLASS_NAMES[label]`, label = index % 10.

    Position, size and angle are drawn from (split, index) alone and are relative to the canvas, which is the unit
    square: `Shapes(64, 64, "train")[i]` and `Shapes(16, 16, "train")[i]` are one scene. On a canvas that is not
    square the scene is stretched with it. `channels` is 1, or 3 for three equal ones. `length` is how many images
    the endless sequence is cut to: 20,000 for "train" and 2,000 for "test" unless given.
    """

    num_classes = len(CLASS_NAMES)

    def __init__(self, height: int, width: int, split: str, channels: int = 1, length: int | None = None):
        if split not in _LENGTHS:
            raise ConfigError(f"data.split={split!r} is unknown to the shapes: use {' or '.join(_LENGTHS)}")
        self._height, self._width, self._channels = height, width, channels
        self._stream = tuple(_LENGTHS).index(split)
        self._length = _LENGTHS[split] if length is None else length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self._length:
            raise IndexError(f"shape {index} of {self._length}")
        label = index % self.num_classes
        coverage = polygon_coverage([self._scene(index, label)], self._height, self._width)
        image = np.round(255 * coverage).astype(np.uint8)
        return {"image": np.repeat(image[..., None], self._channels, axis=-1), "label": label}

    def _scene(self, index: int, label: int) -> Float[np.ndarray, "corners 2"]:
        rng = np.random.default_rng((self._stream, index))
        radius, angle = rng.uniform(*_RADIUS), rng.uniform(0, 2 * np.pi)
        center = rng.uniform(radius + _MARGIN, 1 - radius - _MARGIN, size=2)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return center + radius * POLYGONS[CLASS_NAMES[label]] @ rotation.T
