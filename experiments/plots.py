"""Images for people: grids and labelled sheets of samples at true relative pixel scale, and loss curves.

Arrays in, PNG files out (or a sheet for a notebook to show); nothing here opens a window.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from ledit_jax.errors import DataError

_INK, _GREY, _LINE = "#1a1a1a", "#6a6a6a", "#2563a8"
_MARGIN, _GAP = 28, 36


@dataclass(frozen=True)
class Panel:
    """Images of one size on a sheet. `images` is uint8 [N, h, w, C] and fills rows of `columns` images."""

    title: str
    subtitle: str
    images: UInt8[np.ndarray, "N h w C"]
    columns: int


def image_grid(
    images: UInt8[np.ndarray, "N h w C"], columns: int, scale: int = 1, pad: int = 2
) -> UInt8[np.ndarray, "H W C"]:
    """Images in rows of `columns`, `pad` white pixels apart, each pixel drawn as scale x scale ones."""
    num_images, height, width, channels = images.shape
    rows = -(-num_images // columns)
    big = images.repeat(scale, axis=1).repeat(scale, axis=2)
    step_y, step_x = height * scale + pad, width * scale + pad
    grid = np.full((rows * step_y - pad, columns * step_x - pad, channels), 255, np.uint8)
    for index, image in enumerate(big):
        y, x = index // columns * step_y, index % columns * step_x
        grid[y : y + height * scale, x : x + width * scale] = image
    return grid


def save_png(image: UInt8[np.ndarray, "H W C"], path: str | Path) -> None:
    """Writes one image of 1 (grey) or 3 (RGB) channels; makes the folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    _to_pil(image).save(path, format="PNG")


def sheet(
    panels: Sequence[Panel], path: str | Path, column_names: Sequence[str] = (), scale: int = 3, max_width: int = 1560
) -> None:
    """Writes what `draw_sheet` draws as a PNG file; makes the folder."""
    save_png(np.asarray(draw_sheet(panels, column_names, scale, max_width)), path)


def draw_sheet(
    panels: Sequence[Panel], column_names: Sequence[str] = (), scale: int = 3, max_width: int = 1560
) -> Image.Image:
    """Panels of images side by side, with titles, all at the same `scale`.

    A image with twice the pixels per side is thus twice as large on the sheet. Panels fill rows from the left
    until `max_width` (in pixels; a single panel may be wider). `column_names` stand above each panel's columns.
    """
    blocks = [_draw_panel(panel, column_names, scale) for panel in panels]
    shelves: list[list[Image.Image]] = []
    for block in blocks:
        used = sum(b.width + _GAP for b in shelves[-1]) if shelves else max_width
        if used + block.width > max_width:
            shelves.append([])
        shelves[-1].append(block)
    width = max(sum(b.width for b in shelf) + _GAP * (len(shelf) - 1) for shelf in shelves)
    height = sum(max(b.height for b in shelf) for shelf in shelves) + _GAP * (len(shelves) - 1)
    canvas = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), "white")
    y = _MARGIN
    for shelf in shelves:
        x = _MARGIN
        for block in shelf:
            canvas.paste(block, (x, y))
            x += block.width + _GAP
        y += max(b.height for b in shelf) + _GAP
    return canvas


def loss_curve(metrics: Mapping[str, str | Path], path: str | Path) -> None:
    """Draws the training loss of runs given as name -> metrics.jsonl: the raw values, and a moving average on top.

    Raises DataError for a file that holds no loss.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for index, (name, file) in enumerate(metrics.items()):
        steps, losses = read_losses(file)
        window = max(1, len(losses) // 25)
        smooth = moving_average(losses, window)
        color = _LINE if len(metrics) == 1 else f"C{index}"
        axes.plot(steps, losses, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth, color=color, linewidth=2, label=f"{name}: {smooth[-1]:.3g} at step {steps[-1]:,}")
    axes.set(xlabel="training step", ylabel="loss", yscale="log")
    axes.grid(which="both", color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def read_losses(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses of a metrics.jsonl, in order of steps; of a step logged twice (resumed) the later record.

    Records without a loss are others' (samples, checkpoints), and a line cut short by a kill is passed over.
    """
    losses = {}
    for line in Path(path).read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "loss" in record:
            losses[record["step"]] = record["loss"]
    if not losses:
        raise DataError(f"{path} holds no record with step and loss: give the metrics.jsonl of a training run")
    steps = sorted(losses)
    return np.array(steps), np.array([losses[step] for step in steps], np.float64)


def moving_average(values: Float[np.ndarray, " N"], window: int) -> Float[np.ndarray, " N"]:
    """Centred mean over `window` values; fewer at the ends, where the window reaches beyond the data."""
    kernel = np.ones(min(window, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _draw_panel(panel: Panel, column_names: Sequence[str], scale: int) -> Image.Image:
    """Title and subtitle, the columns' names, and the grid below them."""
    pad = scale + 1
    grid = _to_pil(image_grid(panel.images, panel.columns, scale, pad)).convert("RGB")
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


def _to_pil(image: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image))
