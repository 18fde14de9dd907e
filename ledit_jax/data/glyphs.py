"""Printed digits from the outlines of free fonts, drawn exactly at any resolution: sharp edges, strokes of many widths.

The fonts come with matplotlib: DejaVu (Bitstream Vera's licence, its changes in the public domain), STIX (SIL Open Font
License) and BaKoMa Computer Modern (BaKoMa Fonts Licence). They are read from there, and no copy is kept.
"""

import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ledit_jax.data.drawn import Contours, DrawnFigures

# File -> the range of what is added to both sides of its strokes, in heights of a digit: bold ones cannot take much.
_FONTS = {
    "DejaVuSans": (-0.01, 0.05),
    "DejaVuSans-Bold": (-0.03, 0.01),
    "DejaVuSans-Oblique": (-0.01, 0.05),
    "DejaVuSerif": (0.0, 0.04),
    "DejaVuSerif-Bold": (-0.02, 0.01),
    "DejaVuSerif-Italic": (0.0, 0.04),
    "STIXGeneral": (0.01, 0.05),
    "STIXGeneralBol": (0.0, 0.02),
    "STIXGeneralItalic": (0.01, 0.05),
    "cmr10": (0.01, 0.05),
    "cmss10": (0.0, 0.05),
    "cmtt10": (0.0, 0.05),
    "cmb10": (0.0, 0.02),
}
FONTS = tuple(_FONTS)
_HEIGHT, _ASPECT = (0.5, 0.85), (0.85, 1.15)
"""Height of a digit in canvas units, and how much it is widened."""
_SLANT = 0.2
"""Most columns that a digit leans for each row, to either side."""
_MARGIN = 0.04
_CURVE_POINTS = 5
_SHARPEST = 2.0
"""Most that a corner is moved, in multiples of what is added to a stroke."""


class Glyphs(DrawnFigures):
    """White printed digits on black, one to an image: label = index % 10.

    Font, weight, slant, size and place are left to chance (`DrawnFigures`).
    """

    noun = "glyph"

    def _figure(self, label: int, rng: np.random.Generator) -> Contours:
        font = FONTS[rng.integers(len(FONTS))]
        contours = embolden(font_outline(font, str(label)), rng.uniform(*_FONTS[font]))
        slant, widen, height = rng.uniform(-_SLANT, _SLANT), rng.uniform(*_ASPECT), rng.uniform(*_HEIGHT)
        shear = np.array([[widen, 0.0], [-slant, 1.0]])
        contours = [corners @ shear for corners in contours]
        corners = np.concatenate(contours)
        low, size = corners.min(axis=0), np.ptp(corners, axis=0)
        scale = min(height / size[1], (1 - 2 * _MARGIN) / size[0])
        place = rng.uniform(_MARGIN, 1 - _MARGIN - scale * size)
        return [place + scale * (corners - low) for corners in contours]


@functools.cache
def font_outline(font: str, digit: str) -> Contours:
    """A digit's contours at height 1, y downwards, curves cut into lines; `font` is one of FONTS."""
    import matplotlib  # here, so that other sources do not need it
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    path = TextPath((0, 0), digit, size=100, prop=FontProperties(fname=str(file)))
    contours, steps = [], np.linspace(0, 1, _CURVE_POINTS + 1)[1:]
    for segment, code in path.iter_bezier():
        if code == path.MOVETO:
            contours.append([])
        points = segment(steps if segment.degree > 1 else np.ones(1))
        contours[-1].extend(points.tolist())
    height = np.ptp(path.vertices[path.codes != path.CLOSEPOLY, 1])
    flipped = [np.array(points) * (1, -1) / height for points in contours]
    return [corners[np.any(corners != np.roll(corners, 1, axis=0), axis=1)] for corners in flipped]


def embolden(contours: Contours, added: float) -> Contours:
    """Contours moved outwards by `added`, holes inwards, so that strokes grow by twice as much; negative thins them."""
    ink = sum(_signed_area(corners) for corners in contours)
    return [corners + added * np.sign(ink) * _outwards(corners) for corners in contours]


def _signed_area(corners: Float[np.ndarray, "_ 2"]) -> float:
    (x, y), (x_next, y_next) = corners.T, np.roll(corners, -1, axis=0).T
    return float(np.sum(x * y_next - x_next * y)) / 2


def _outwards(corners: Float[np.ndarray, "_ 2"]) -> Float[np.ndarray, "_ 2"]:
    """How far each corner moves when its two edges move by one to the right of their direction."""
    edges = np.roll(corners, -1, axis=0) - corners
    normals = edges[:, ::-1] * (1, -1) / np.linalg.norm(edges, axis=1, keepdims=True)
    both = normals + np.roll(normals, 1, axis=0)
    miter = 2 * both / np.maximum(np.sum(both**2, axis=1, keepdims=True), 1e-6)
    length = np.linalg.norm(miter, axis=1, keepdims=True)
    return miter * np.minimum(1, _SHARPEST / np.maximum(length, 1e-6))
