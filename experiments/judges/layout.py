"""Where an image has its light, dark and colours, whatever these are made of: a layout that texture cannot help.

As sFID (Nash et al. 2021, arXiv 2103.03841) this asks where things are; it does so without a network.
"""

import numpy as np
from jaxtyping import Float, UInt8

CELLS = 4
"""Cells a side that an image is divided into."""


def layout_features(images: UInt8[np.ndarray, "N h w C"]) -> Float[np.ndarray, "N D"]:
    """Each image as a vector of length 1: the mean colours of 4 x 4 equal cells, less the mean of all of them.

    D = 16 C. Brightness, tint and contrast of the whole image leave no trace, nor does anything smaller than a cell. An
    image of one colour is a vector of zeros.
    """
    N, h, w, C = images.shape
    cells = np.einsum("yh,nhwc,xw->nyxc", _means(h), images.astype(np.float64), _means(w), optimize=True)
    cells -= cells.mean(axis=(1, 2), keepdims=True)
    vectors = cells.reshape(N, CELLS * CELLS * C)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Below a 1000th of a grey level there is rounding alone.
    return vectors / np.where(length > 1e-3, length, np.inf)


def _means(side: int) -> Float[np.ndarray, "cells side"]:
    """Rows that average the pixels of each cell; a pixel across a border counts for both, by its parts."""
    borders = np.linspace(0, side, CELLS + 1)
    pixels = np.arange(side)
    shared = np.minimum(borders[1:, None], pixels + 1) - np.maximum(borders[:-1, None], pixels)
    return shared.clip(min=0) * CELLS / side
