"""Scenes of solid figures with captions, drawn exactly at any resolution: 'a red disc above a blue square'.

As in `shapes`, one index is one scene whatever the resolution, so that a model trained at one size can be judged at
another. A caption says colour, shape, number and relation; where in the canvas figures lie is left to chance.
"""

from itertools import combinations

import numpy as np
from jaxtyping import Float, UInt8

from ledit_jax.data.drawn import DrawnScenes
from ledit_jax.data.polygons import polygon_coverage
from ledit_jax.data.scene_captions import COLOURS, COUNTS, PAIRS, Request
from ledit_jax.data.shapes import POLYGONS

SIDE = (0.26, 0.36)
"""Square root of a figure's area, in shares of the canvas' shorter side."""
_MARGIN, _GAP = 0.02, 0.06
"""Least distance of a figure's box to the border and to the next box, in shares of the canvas."""
_PAIRS_SHARE = 0.6
_SLANT = 0.6
"""Across the relation two centres differ by at most this share of what they differ along it."""
_TRIES = 32
"""Draws at once."""
_MOST_KEPT = 2**26


def _upright(name: str, turn: float) -> np.ndarray:
    """A polygon turned by so many radians, with area 1 and its centre of area at the origin."""
    x, y = (POLYGONS[name] @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]).T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    area = cross.sum() / 2
    centre = [((v + np.roll(v, -1)) * cross).sum() / (6 * area) for v in (x, y)]
    return (np.stack([x, y], axis=-1) - centre) / np.sqrt(abs(area))


OUTLINES = {
    "disc": _upright("disc", 0.0),
    "square": _upright("square", np.pi / 4),
    "triangle": _upright("triangle", -np.pi / 2),
    "cross": _upright("plus", 0.0),
}
"""Corners of each shape with area 1 around the origin; y grows downwards."""
_BOXES = {name: np.array([corners.min(0), corners.max(0)]) for name, corners in OUTLINES.items()}


class Scenes(DrawnScenes):
    """Records {"image": uint8 [height, width, 3], "captions": list of str}; `request(i)` is what record i shows.

    On a canvas that is not square places stretch with it and figures keep their proportions. The split "test" has
    only combinations that "train" never has (`scene_captions`). What was drawn is kept, up to 64 MiB.
    """

    noun = "scene"

    def __init__(self, height: int, width: int, split: str, length: int | None = None):
        super().__init__(height, width, split, length)
        self._kept: dict[int, np.ndarray] = {}

    def __getitem__(self, index: int) -> dict:
        request, rng = self._begin(index)
        image = self._kept.get(index)
        if image is None:
            image = self._draw(request, rng)
            if len(self._kept) * image.size < _MOST_KEPT:
                self._kept[index] = image
        return {"image": image.copy(), "captions": request.captions}

    def _draw(self, request: Request, rng: np.random.Generator) -> UInt8[np.ndarray, "height width 3"]:
        image = np.zeros((self._height, self._width, 3))
        for (colour, shape), place, side in zip(request.figures, *_arrange(request, rng), strict=True):
            image += figure_coverage(shape, place, side, self._height, self._width)[..., None] * COLOURS[colour]
        return np.round(np.minimum(image, 255)).astype(np.uint8)

    def request(self, index: int) -> Request:
        """What record `index` shows."""
        return self._begin(index)[0]

    def _begin(self, index: int) -> tuple[Request, np.random.Generator]:
        rng = self._rng(index)
        requests = (PAIRS if rng.random() < _PAIRS_SHARE else COUNTS)[self._split]
        return requests[rng.integers(len(requests))], rng


def figure_coverage(
    shape: str, place: Float[np.ndarray, " 2"], side: float, height: int, width: int
) -> Float[np.ndarray, "height width"]:
    """Share of each pixel that a figure covers. place: its centre (x, y) in shares of the canvas; side: see SIDE."""
    shares = side * min(height, width) / np.array([width, height])
    return polygon_coverage([place + OUTLINES[shape] * shares], height, width)


def _arrange(
    request: Request, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "figures 2"], Float[np.ndarray, " figures"]]:
    """Centres (x, y) and sides: the first of many draws in which no two figures are close and the relation holds."""
    count = len(request.figures)
    boxes = np.stack([_BOXES[shape] for _, shape in request.figures])
    while True:
        sides = rng.uniform(*SIDE, size=(_TRIES, count))
        start, end = (sides[..., None] * boxes[:, corner] for corner in (0, 1))
        places = rng.uniform(_MARGIN - start, 1 - _MARGIN - end)
        good = np.ones(_TRIES, bool)
        for first, second in combinations(range(count), 2):
            low, high = (places[:, (first, second)] + edge[:, (first, second)] for edge in (start, end))
            # Of the gap in x and the gap in y the wider, one of each being negative.
            good &= np.maximum(low[:, 1] - high[:, 0], low[:, 0] - high[:, 1]).max(axis=-1) >= _GAP
        if request.relation:
            offset = places[:, 1] - places[:, 0]
            along, across = offset.T if request.relation == "left of" else offset.T[::-1]
            good &= abs(across) <= _SLANT * along
        if good.any():
            return places[good.argmax()], sides[good.argmax()]
