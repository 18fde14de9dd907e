"""The results of a study: tables, figures with a line for each method, image grids with a row for each method."""

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from experiments.report import Samples, relative_size
from experiments.study.cells import Cell
from experiments.study.config import Size, StudyConfig
from experiments.study.methods import METHODS
from experiments.study.reference import Figures
from ledit_jax.evaluation.tables import markdown
from ledit_jax.files import write_json, write_whole
from ledit_jax.sampling.sheets import image_grid

METRICS = {
    "accuracy": ("Share read as the class asked for (higher is better)", "{:.1%}"),
    "frechet": ("Fréchet distance to real images of that size (lower is better)", "{:.2f}"),
    "duplication": ("Duplication (0.5 is what real images have, 1 a tiling)", "{:.2f}"),
    "objects": ("Connected shapes per image (a real one has 1)", "{:.2f}"),
}
_COLUMNS = 10
_IMAGE_HEIGHT = 64
_REAL = "real held-out images"


def write_study(
    config: StudyConfig,
    cells: Sequence[Cell],
    real: Mapping[Size, Figures],
    folder: Path,
    load: Callable[[Cell], Samples],
) -> None:
    """Writes table.md, table.csv, results.json, METRIC.png and images-HxW.png to `folder`, and prints the tables.

    real: figures of real held-out images at each size. load: the images of a cell that has figures.
    """
    tables = study_tables(config, cells, real)
    write_whole(folder / "table.md", tables + "\n")
    _write_csv(cells, folder / "table.csv")
    _write_json(config, cells, real, folder / "results.json")
    for metric in _measured(real):
        metric_figure(config, cells, real, metric, folder / f"{metric}.png")
    for size in config.image_sizes:
        _write_images(config, cells, size, load, folder / f"images-{size[0]}x{size[1]}.png")
    print(f"\n{tables}\n\nWrote table.md, table.csv, results.json, the figures and images-*.png to {folder}")


def study_tables(config: StudyConfig, cells: Sequence[Cell], real: Mapping[Size, Figures]) -> str:
    """Markdown: a table per metric, methods down and sizes across; mean and standard deviation over the seeds.

    The deviation (of the sample, n - 1) is given where there are two or more. A cell that failed says so, and its
    error stands below.
    """
    header = ["method", *(f"{h}x{w} ({relative_size((h, w), config.trained_size)})" for h, w in config.image_sizes)]
    parts = []
    for metric in _measured(real):
        title, form = METRICS[metric]
        lines = [
            [METHODS[name].label, *(_entry(_of(cells, name, size), metric, form) for size in config.image_sizes)]
            for name in config.methods
        ]
        lines.append([_REAL, *(form.format(getattr(real[size], metric)) for size in config.image_sizes)])
        parts.append(f"{title}:\n\n{markdown(header, lines)}")
    count = next(iter(real.values())).num_samples
    parts.append(
        f"Per cell {config.per_class * config.experiment.model.num_classes} images of each of {len(config.seeds)} "
        f"seed(s), {count} real ones; {config.steps:,} training steps"
        + (f" after {config.base_steps:,} of a common DiT." if config.base_steps else " from scratch.")
    )
    errors = dict.fromkeys(f"- {c.method}, seed {c.seed}: {c.error}" for c in cells if c.figures is None)
    if errors:
        parts.append("Failed:\n\n" + "\n".join(errors))
    return "\n\n".join(parts)


def metric_figure(
    config: StudyConfig, cells: Sequence[Cell], real: Mapping[Size, Figures], metric: str, path: Path
) -> None:
    """A metric against the size, a line per method with its spread over the seeds, real images dashed."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(config.image_sizes))
    for index, name in enumerate(config.methods):
        values = [_values(_of(cells, name, size), metric) for size in config.image_sizes]
        means = [np.mean(v) if v else np.nan for v in values]
        spreads = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in values] if len(config.seeds) > 1 else None
        style = {"color": f"C{index % 10}", "linestyle": ("-", "--", ":", "-.")[index // 10 % 4]}
        axes.errorbar(places, means, spreads, marker="o", markersize=4, capsize=3, label=METHODS[name].label, **style)
    floor = [getattr(real[size], metric) for size in config.image_sizes]
    axes.plot(places, floor, color="black", linestyle=(0, (1, 2)), label=_REAL)
    labels = [f"{h}x{w}\n{relative_size((h, w), config.trained_size)}" for h, w in config.image_sizes]
    axes.set_xticks(places, labels)
    axes.set(xlabel="height x width, against the training size", ylabel=METRICS[metric][0])
    if metric == "frechet":
        axes.set_yscale("log")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, format="png")


def image_rows(rows: Sequence[tuple[str, UInt8[np.ndarray, "N h w C"]]], scale: int) -> Image.Image:
    """A row of images per name, the names on the left; every row has as many images of one size."""
    font = ImageFont.load_default(15)
    left = int(max(font.getlength(name) for name, _ in rows)) + 16
    strips = [image_grid(images, len(images), scale, pad=scale + 1) for _, images in rows]
    height, width = strips[0].shape[:2]
    gap = scale + 5
    canvas = Image.new("RGB", (left + width, len(rows) * (height + gap) - gap), "white")
    draw = ImageDraw.Draw(canvas)
    for index, ((name, _), strip) in enumerate(zip(rows, strips, strict=True)):
        y = index * (height + gap)
        draw.text((0, y + height / 2), name, "#1a1a1a", font, anchor="lm")
        canvas.paste(Image.fromarray(strip if strip.shape[-1] == 3 else strip[..., 0]), (left, y))
    return canvas


def _write_images(
    config: StudyConfig, cells: Sequence[Cell], size: Size, load: Callable[[Cell], Samples], path: Path
) -> None:
    """The first images of each method with the first seed: the same noise and classes in every row."""
    rows = []
    for name in config.methods:
        drawn = [c for c in _of(cells, name, size) if c.figures is not None and c.seed == config.seeds[0]]
        if drawn:
            rows.append((METHODS[name].label, load(drawn[0]).images[:_COLUMNS]))
    if rows:
        image_rows(rows, max(1, _IMAGE_HEIGHT // size[0])).save(path, format="PNG")


def _write_csv(cells: Sequence[Cell], path: Path) -> None:
    names = [field.name for field in dataclasses.fields(Figures)]
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["method", "seed", "height", "width", *names, "error"])
        for cell in cells:
            figures = ["" for _ in names] if cell.figures is None else dataclasses.astuple(cell.figures)
            writer.writerow([cell.method, cell.seed, *cell.size, *figures, cell.error])


def _write_json(config: StudyConfig, cells: Sequence[Cell], real: Mapping[Size, Figures], path: Path) -> None:
    results = {
        "study": dataclasses.asdict(config),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cells": [dataclasses.asdict(cell) for cell in cells],
        "real": [{"size": size, **dataclasses.asdict(figures)} for size, figures in real.items()],
    }
    write_json(path, results)


def _measured(real: Mapping[Size, Figures]) -> list[str]:
    return [name for name in METRICS if getattr(next(iter(real.values())), name) is not None]


def _of(cells: Sequence[Cell], method: str, size: Size) -> list[Cell]:
    return [cell for cell in cells if (cell.method, cell.size) == (method, size)]


def _values(cells: Sequence[Cell], metric: str) -> list[float]:
    return [getattr(cell.figures, metric) for cell in cells if cell.figures is not None]


def _entry(cells: Sequence[Cell], metric: str, form: str) -> str:
    values = _values(cells, metric)
    if not values:
        return "failed"
    entry = form.format(np.mean(values))
    if len(values) > 1:
        entry += f" ± {form.format(np.std(values, ddof=1))}"
    lost = len(cells) - len(values)
    return entry + (f" ({lost} failed)" if lost else "")
