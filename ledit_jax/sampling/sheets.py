"""Images for people: grids, and labelled sheets of several sizes at true relative scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from ledit_jax.data.transforms import to_image
from ledit_jax.files import Place, as_place, written_aside

_INK, _GREY = "#1a1a1a", "#6a6a6a"
_MARGIN, _GAP, _HEADING = 28, 36, 42


@dataclass(frozen=True)
class Panel:
    """Images of one size on a sheet. `images` is uint8 [N, h, w, C] and fills rows of `columns` images."""

    title: str
    subtitle: str
    images: UInt8[np.ndarray, "N h w C"]
    columns: int


def image_grid(
    images: UInt8[np.ndarray, "N h w C"], columns: int, scale: int = 1, pad: int = 2, framed: bool = False
) -> UInt8[np.ndarray, "H W C"]:
    """Images in rows of `columns`, each pixel drawn as scale x scale ones, `pad` white pixels apart.

    framed: the pixels are mid-grey, and lie around the grid as well.
    """
    num_images, height, width, channels = images.shape
    margin, color = (pad, 128) if framed else (0, 255)
    rows = -(-num_images // columns)
    big = images.repeat(scale, axis=1).repeat(scale, axis=2)
    step_y, step_x = height * scale + pad, width * scale + pad
    size = rows * step_y - pad + 2 * margin, columns * step_x - pad + 2 * margin
    grid = np.full((*size, channels), color, np.uint8)
    for index, image in enumerate(big):
        y, x = index // columns * step_y + margin, index % columns * step_x + margin
        grid[y : y + height * scale, x : x + width * scale] = image
    return grid


def save_png(image: UInt8[np.ndarray, "H W C"], path: str | Place) -> None:
    """Writes one image of 1 (grey) or 3 (RGB) channels; makes the folder. Raises OutputError."""
    with written_aside(as_place(path)) as aside:
        to_image(image).save(aside)


def save_sheet(
    panels: Sequence[Panel],
    path: str | Path,
    column_names: Sequence[str] = (),
    scale: int = 3,
    max_width: int = 1560,
    across: int | None = None,
    headings: Sequence[str] = (),
) -> None:
    """Writes what `draw_sheet` draws as a PNG file; makes the folder. Raises OutputError."""
    save_png(np.asarray(draw_sheet(panels, column_names, scale, max_width, across, headings)), path)


def draw_sheet(
    panels: Sequence[Panel],
    column_names: Sequence[str] = (),
    scale: int = 3,
    max_width: int = 1560,
    across: int | None = None,
    headings: Sequence[str] = (),
) -> Image.Image:
    """Panels of images side by side, with titles, all at the same `scale`.

    An image with twice the pixels per side is thus twice as large on the sheet. Panels fill rows from the left
    until `max_width` (in pixels; a single panel may be wider). With `across` there are so many in each row, however
    wide, and those below one another begin at the same place, under a heading for each row where there are any.
    `column_names` stand above each panel's columns.
    """
    blocks = [_draw_panel(panel, column_names, scale) for panel in panels]
    shelves = [blocks[i : i + across] for i in range(0, len(blocks), across)] if across else _fill(blocks, max_width)
    columns = [max(shelf[i].width for shelf in shelves if i < len(shelf)) for i in range(across or 0)]
    steps = [columns[: len(shelf)] if across else [block.width for block in shelf] for shelf in shelves]
    width = max(sum(row) + _GAP * (len(row) - 1) for row in steps)
    above = _HEADING if headings else 0
    height = sum(above + max(b.height for b in shelf) for shelf in shelves) + _GAP * (len(shelves) - 1)
    canvas = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), "white")
    draw, y = ImageDraw.Draw(canvas), _MARGIN
    for index, (shelf, row) in enumerate(zip(shelves, steps, strict=True)):
        if headings:
            draw.text((_MARGIN, y), headings[index], _INK, ImageFont.load_default(25))
            y += above
        x = _MARGIN
        for block, step in zip(shelf, row, strict=True):
            canvas.paste(block, (x, y))
            x += step + _GAP
        y += max(b.height for b in shelf) + _GAP
    return canvas


def _fill(blocks: Sequence[Image.Image], max_width: int) -> list[list[Image.Image]]:
    shelves: list[list[Image.Image]] = []
    for block in blocks:
        used = sum(b.width + _GAP for b in shelves[-1]) if shelves else max_width
        if used + block.width > max_width:
            shelves.append([])
        shelves[-1].append(block)
    return shelves


def _draw_panel(panel: Panel, column_names: Sequence[str], scale: int) -> Image.Image:
    """Title and subtitle, the columns' names, and the grid below them."""
    pad = scale + 1
    grid = to_image(image_grid(panel.images, panel.columns, scale, pad)).convert("RGB")
    title, text = ImageFont.load_default(21), ImageFont.load_default(15)
    step = panel.images.shape[2] * scale + pad
    # Names wider than their column would run into each other: then all of them are set smaller.
    widest = max((text.getlength(name) for name in column_names), default=1)
    small = ImageFont.load_default(max(9.0, 15 * min(1, (step - 8) / widest)))
    top = 62 + (24 if column_names else 0)
    width = max(grid.width, int(title.getlength(panel.title)), int(text.getlength(panel.subtitle))) + 1
    block = Image.new("RGB", (width, top + grid.height), "white")
    draw = ImageDraw.Draw(block)
    draw.text((0, 0), panel.title, _INK, title)
    draw.text((0, 31), panel.subtitle, _GREY, text)
    for column, name in enumerate(column_names):
        draw.text((column * step + (step - pad) / 2, top - 6), name, _GREY, small, anchor="ms")
    block.paste(grid, (0, top))
    return block
