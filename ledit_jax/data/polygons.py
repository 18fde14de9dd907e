"""Polygons on a grid of pixels, by exact area: what the drawn sources are made of."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def polygon_coverage(contours: Sequence[Float[np.ndarray, "_ 2"]], height: int, width: int) -> Float[np.ndarray, "H W"]:
    """Share of each pixel, 0..1, that closed contours cover; the canvas is the unit square of their (x, y) corners.

    Contours do not cross, and holes run the other way round than what they are holes of. What lies beyond the canvas is
    cut off. Exact, not sampled. Each edge adds the area between it and the right border of the canvas, counted positive
    for edges that run down and negative for edges that run up, and what lies beyond the contours cancels.
    """
    start = np.concatenate(contours) * (width, height)
    end = np.concatenate([np.roll(corners, -1, axis=0) for corners in contours]) * (width, height)
    crosses = start[:, 1] != end[:, 1]  # a level edge adds nothing
    start, end = start[crosses], end[crosses]
    top, bottom = (np.clip(reach(start[:, 1], end[:, 1]), 0, height) for reach in (np.minimum, np.maximum))
    # Every edge with every row that it crosses, as one list of pairs: a disc has 128 edges, most within one row.
    first = top.astype(int)
    crossed = np.ceil(bottom).astype(int) - first
    edge = np.repeat(np.arange(len(crossed)), crossed)
    row = np.arange(len(edge)) + (first - (np.cumsum(crossed) - crossed))[edge]
    y = np.clip([row, row + 1], top[edge], bottom[edge])  # [2, pairs]: where the edge enters and leaves the row
    run, rise = (end - start).T
    x = start[edge, 0] + (y - start[edge, 1]) * (run / rise)[edge]
    area = np.zeros((height, width))
    np.add.at(area, row, (np.sign(rise)[edge] * (y[1] - y[0]))[:, None] * _mean_share(x[0], x[1], width))
    return np.clip(abs(area), 0, 1)


def _mean_share(
    start: Float[np.ndarray, " pairs"], end: Float[np.ndarray, " pairs"], width: int
) -> Float[np.ndarray, "pairs W"]:
    """Mean, over x running evenly from `start` to `end`, of the share of each pixel that lies to the right of x."""
    start, end = np.arange(1, width + 1) - start[:, None], np.arange(1, width + 1) - end[:, None]
    upright = abs(end - start) < 1e-6
    return np.where(
        upright,
        np.clip((start + end) / 2, 0, 1),
        (_share_integral(end) - _share_integral(start)) / np.where(upright, 1, end - start),
    )


def _share_integral(u: np.ndarray) -> np.ndarray:
    """Integral of clip(u, 0, 1) from 0."""
    return np.clip(u, 0, 1) ** 2 / 2 + np.maximum(u - 1, 0)
