"""Sheets of a study's images: the methods at one size, or the sizes of one method, each with its figures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.sizes import Size, relative_size
from experiments.study.images import Samples
from experiments.study.results import METRICS, Results
from ledit_jax.sampling.sheets import Panel, save_sheet

_COLUMNS = 10
"""Most classes on a sheet, a column for each."""
_ROWS = 6
_FEW, _OVERVIEW_WIDTH = 4, 1440
"""Images of a method and size on the overview, and its width in pixels, titles aside."""
_IMAGE_HEIGHT = 64
"""Pixels on a sheet of one size, or more for larger images."""


def size_sheet(results: Results, size: Size, images: Mapping[str, Samples], path: Path) -> None:
    """A panel for each method, with one row of images: the same noise and classes in all of them."""
    panels = [_panel(results, name, size, results.methods[name], s, rows=1) for name, s in images.items()]
    _write(panels, path, scale=max(1, _IMAGE_HEIGHT // size[0]))


def method_sheet(results: Results, name: str, images: Mapping[Size, Samples], path: Path) -> None:
    """A panel for each size of a method, all at one scale, so that an image of twice the side is twice as large."""
    panels = []
    for size, samples in images.items():
        relative = relative_size(size, results.trained_size)
        title = f"{size[0]} x {size[1]}   ({relative}{', as trained' if relative == '1x' else ''})"
        panels.append(_panel(results, name, size, title, samples, rows=_ROWS))
    _write(panels, path, scale=3)


def overview_sheet(results: Results, images: Mapping[tuple[str, Size], Samples], path: Path) -> None:
    """Methods down and sizes across, a few images each: the same conditions and noise everywhere, all at one scale.

    A cell that failed is a blank with a title.
    """
    panels = [
        _panel(results, name, size, title, images[name, size], 1, _FEW)
        if (name, size) in images
        else Panel(title, "failed", np.full((1, *size, 1), 255, np.uint8), 1)
        for name in results.methods
        for size, title in zip(results.sizes, _overview_titles(results, name), strict=True)
    ]
    if panels:
        scale = max(1, _OVERVIEW_WIDTH // (_FEW * sum(size[1] for size in results.sizes)))
        save_sheet(panels, path, scale=scale, across=len(results.sizes))


def _overview_titles(results: Results, name: str) -> list[str]:
    """The method's label with the first size alone."""
    first, *others = (relative_size(size, results.trained_size) for size in results.sizes)
    return [f"{results.methods[name]}, {first}", *others]


def _panel(
    results: Results, name: str, size: Size, title: str, samples: Samples, rows: int, columns: int = _COLUMNS
) -> Panel:
    columns = min(int(samples.labels.max()) + 1, columns)
    shown = samples.images[samples.labels < columns][: rows * columns]
    entries = results.entries[name, size]
    said = [f"{METRICS['accuracy'][1].format(entries['accuracy'].mean)} read right"]
    if "frechet" in entries:
        said.append(f"Frechet {METRICS['frechet'][1].format(entries['frechet'].mean)}")
    return Panel(title, "   |   ".join(said), shown, columns)


def _write(panels: list[Panel], path: Path, scale: int) -> None:
    if panels:
        save_sheet(panels, path, [str(label) for label in range(panels[0].columns)], scale)
