"""Ten solid shapes at random places, sizes and angles, drawn exactly at any resolution.

One index is one scene whatever the resolution, so a model trained at one size can be judged at another.
"""

import numpy as np

from ledit_jax.data.drawn import Contours, DrawnFigures

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


class Shapes(DrawnFigures):
    """White shapes on black, one to an image: `CLASS_NAMES[label]`, label = index % 10.

    Place, size and angle are left to chance (`DrawnFigures`).
    """

    noun = "shape"

    def _figure(self, label: int, rng: np.random.Generator) -> Contours:
        radius, angle = rng.uniform(*_RADIUS), rng.uniform(0, 2 * np.pi)
        center = rng.uniform(radius + _MARGIN, 1 - radius - _MARGIN, size=2)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return [center + radius * POLYGONS[CLASS_NAMES[label]] @ rotation.T]
