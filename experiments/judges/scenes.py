"""The judge of scenes: it reads colour, shape, place and number of figures from pixels, and holds them to a caption.

Nothing is trained. Whatever is brighter than half is parted into connected regions; each is taken for the figure of
its area, centre and mean colour that differs least from it, drawn as the data draw it (`ledit_jax/data/scenes.py`)
at the image's own size. So blurred edges, streaks, holes and what lies about cost as much as they cover.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, UInt8

from ledit_jax.data.polygons import polygon_coverage
from ledit_jax.data.scene_captions import COLOURS, Request
from ledit_jax.data.scenes import OUTLINES, SIDE

MISFIT = 0.25
"""A region has a shape if it differs from it by less than this share of its area."""
LITTER = 0.35
"""All that belongs to no figure may cover less than this share of the smallest figure."""
SIZES = (0.75 * SIDE[0], 1.3 * SIDE[1])
"""Sides of figures, in shares of the canvas, that are taken for those of a scene of this size."""
_SPECK = 0.15
"""A region of less than this share of the smallest figure's area is no figure."""
_PALETTE = np.array(list(COLOURS.values())) / 255


@dataclass(frozen=True)
class Figure:
    """A figure as it was read. place: its centre (x, y), and side: the root of its area, in shares of the canvas."""

    colour: str
    shape: str
    """Empty for a region that is none of the shapes."""
    place: tuple[float, float]
    side: float


@dataclass(frozen=True)
class Reading:
    """What is in an image; litter: area outside of figures as a share of the smallest figure's."""

    figures: tuple[Figure, ...]
    litter: float


@dataclass(frozen=True)
class Verdict:
    """Whether an image is what a caption asks for.

    Relations count, not places: a scene may lie anywhere. A scene drawn at half its size in a corner is not one,
    since figures have their size in shares of the canvas.
    """

    colour: bool
    """Colours asked for are there, and no others."""
    shape: bool
    """Each figure has the shape asked for with its colour, or if it has none of these colours, one asked for."""
    place: bool | None
    """The relation holds between the largest figures of the two colours. None where no relation is asked for."""
    count: bool
    """As many figures as asked for, of the size that scenes have, and nothing else."""

    @property
    def right(self) -> bool:
        """All of it."""
        return self.colour and self.shape and self.count and self.place is not False


def read(image: UInt8[np.ndarray, "h w 3"]) -> Reading:
    """The figures of an image of any size."""
    pixels = image / 255
    height, width = image.shape[:2]
    smallest = (SIDE[0] * min(height, width)) ** 2
    regions, count = scipy.ndimage.label(pixels.max(axis=-1) > 0.5, np.ones((3, 3)))
    areas = scipy.ndimage.sum_labels(np.ones_like(regions), regions, np.arange(1, count + 1))
    is_figure = np.concatenate([[False], areas >= _SPECK * smallest])
    # Every pixel near a figure belongs to the nearest one: its edge has less than half of its colour.
    distance, nearest = scipy.ndimage.distance_transform_edt(~is_figure[regions], return_indices=True)
    owner = np.where(distance < 2, regions[tuple(nearest)], 0)
    windows = scipy.ndimage.find_objects(owner)
    figures = [_figure(pixels, regions == i, owner == i, windows[i - 1]) for i in np.flatnonzero(is_figure)]
    return Reading(tuple(figures), float(pixels.max(axis=-1)[owner == 0].sum() / smallest))


def judge(image: UInt8[np.ndarray, "h w 3"], request: Request) -> Verdict:
    """Holds an image to what was asked for."""
    reading = read(image)
    figures, asked = reading.figures, dict(request.figures)
    colours = {figure.colour for figure in figures}
    shapes = [
        figure.shape in ({asked[figure.colour]} if figure.colour in asked else asked.values()) for figure in figures
    ]
    sized = all(SIZES[0] <= figure.side <= SIZES[1] for figure in figures)
    return Verdict(
        colour=colours == set(asked),
        shape=bool(figures) and all(shapes),
        place=_holds(request, figures) if request.relation else None,
        count=len(figures) == len(request.figures) and sized and reading.litter < LITTER,
    )


def shares(images: UInt8[np.ndarray, "B h w 3"], requests: Sequence[Request]) -> dict[str, float]:
    """Shares, 0 to 1, of images that are right in all, and in each part; of places where a relation is asked for."""
    verdicts = [judge(image, request) for image, request in zip(images, requests, strict=True)]
    return {
        name: float(np.mean([value for v in verdicts if (value := getattr(v, name)) is not None] or [np.nan]))
        for name in ("right", "colour", "shape", "place", "count")
    }


def _figure(
    pixels: Float[np.ndarray, "h w 3"],
    core: Bool[np.ndarray, "h w"],
    own: Bool[np.ndarray, "h w"],
    window: tuple[slice, slice],
) -> Figure:
    """The figure nearest to a region's own pixels, which lie in `window`; core: those that are brighter than half."""
    canvas = np.array(core.shape[::-1])
    colour = int(((pixels[core].mean(axis=0) - _PALETTE) ** 2).sum(axis=-1).argmin())
    rgb = _PALETTE[colour]
    seen = np.where(own[..., None], pixels, 0)[window]
    coverage = seen @ rgb / (rgb @ rgb)
    area, (height, width) = coverage.sum(), coverage.shape
    centre = np.array([coverage.sum(axis=0) @ np.arange(width), coverage.sum(axis=1) @ np.arange(height)]) / area + 0.5
    misfits = {}
    for shape, outline in OUTLINES.items():
        drawn = polygon_coverage([(centre + outline * np.sqrt(area)) / (width, height)], height, width)
        misfits[shape] = abs(seen - drawn[..., None] * rgb).max(axis=-1).sum() / area
    best = min(misfits, key=misfits.__getitem__)
    x, y = (centre + np.array([window[1].start, window[0].start])) / canvas
    return Figure(
        list(COLOURS)[colour], best if misfits[best] < MISFIT else "", (x, y), float(np.sqrt(area)) / canvas.min()
    )


def _holds(request: Request, figures: Sequence[Figure]) -> bool:
    """Whether the first colour's largest figure lies where it should from the second's, by places in the canvas."""
    ends = []
    for colour, _ in request.figures:
        ours = [figure for figure in figures if figure.colour == colour]
        if not ours:
            return False
        ends.append(np.array(max(ours, key=lambda figure: figure.side).place))
    x, y = ends[1] - ends[0]
    return bool(y > abs(x)) if request.relation == "above" else bool(x > abs(y))
