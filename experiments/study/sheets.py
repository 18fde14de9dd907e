"""Sheets of a study's images: the methods at one size, or the sizes of one method, each with its figures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from experiments.sizes import Size, relative_size
from experiments.study.images import Samples
from experiments.study.results import METRICS, Results
from ledit_jax.sampling.sheets import Panel, save_sheet

_COLUMNS = 10
"""Most classes on a sheet, a column for each."""
_ROWS = 6
_FEW, _FEW_COLUMNS, _OVERVIEW_WIDTH = 10, 5, 1440
"""Images of a method and size on the overview and their columns, and its width in pixels, gaps aside."""
_IMAGE_HEIGHT = 64
"""Pixels on a sheet of one size, or more for larger images."""


def size_sheet(results: Results, size: Size, images: Mapping[str, Samples], path: Path) -> None:
    """A panel for each method, with one row of images: the same noise and classes in all of them."""
    panels = [_panel(results, name, size, results.methods[name], *_by_class(s, 1)) for name, s in images.items()]
    _write(panels, path, scale=max(1, _IMAGE_HEIGHT // size[0]))


def method_sheet(results: Results, name: str, images: Mapping[Size, Samples], path: Path) -> None:
    """A panel for each size of a method, all at one scale, so that an image of twice the side is twice as large."""
    panels = []
    for size, samples in images.items():
        relative = relative_size(size, results.trained_size)
        title = f"{size[0]} x {size[1]}   ({relative}{', as trained' if relative == '1x' else ''})"
        panels.append(_panel(results, name, size, title, *_by_class(samples, _ROWS)))
    _write(panels, path, scale=3)


def overview_sheet(results: Results, images: Mapping[tuple[str, Size], Samples], path: Path) -> None:
    """Methods down and sizes across, a few images each: the same conditions and noise everywhere, all at one scale.

    A cell that failed is a blank with a title.
    """
    titles = {size: relative_size(size, results.trained_size) for size in results.sizes}
    panels = [
        _panel(results, name, size, titles[size], images[name, size].images[:_FEW], _FEW_COLUMNS)
        if (name, size) in images
        else Panel(titles[size], "failed", np.full((1, *size, 1), 255, np.uint8), 1)
        for name in results.methods
        for size in results.sizes
    ]
    if panels:
        scale = max(1, _OVERVIEW_WIDTH // (_FEW_COLUMNS * sum(size[1] for size in results.sizes)))
        headings = list(results.methods.values())
        save_sheet(panels, path, scale=scale, across=len(results.sizes), headings=headings)


def _by_class(samples: Samples, rows: int) -> tuple[UInt8[np.ndarray, "N h w C"], int]:
    """(images, columns): rows of one image of each class, as many classes as a sheet has columns for."""
    columns = min(int(samples.labels.max()) + 1, _COLUMNS)
    return samples.images[samples.labels < columns][: rows * columns], columns


def _panel(
    results: Results, name: str, size: Size, title: str, images: UInt8[np.ndarray, "N h w C"], columns: int
) -> Panel:
    entries = results.entries[name, size]
    said = [f"{METRICS['accuracy'][1].format(entries['accuracy'].mean)} read right"]
    if "frechet" in entries:
        said.append(f"Frechet {METRICS['frechet'][1].format(entries['frechet'].mean)}")
    return Panel(title, "   |   ".join(said), images, columns)


def _write(panels: list[Panel], path: Path, scale: int) -> None:
    if panels:
        save_sheet(panels, path, [str(label) for label in range(panels[0].columns)], scale)
