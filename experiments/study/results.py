"""The results of a study, as its tables and charts need them, and as JSON that a page can keep."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.sizes import Size
from experiments.study.config import StudyConfig
from experiments.study.reference import Figures
from ledit_jax.errors import ConfigError, DataError, nearest
from ledit_jax.files import write_whole
from ledit_jax.files.readers import read_json

METRICS = {
    "accuracy": ("Share read as what was asked for (higher is better)", "{:.1%}"),
    "colour": ("Share with the colours asked for, and no others (higher is better)", "{:.1%}"),
    "shape": ("Share with the shapes asked for, in their colours (higher is better)", "{:.1%}"),
    "place": ("Share with the relation asked for, where there is one (higher is better)", "{:.1%}"),
    "count": ("Share with as many figures as asked for, and nothing else (higher is better)", "{:.1%}"),
    "frechet": ("Fréchet distance to real images of that size (lower is better)", "{:.2f}"),
    "patches": ("Fréchet distance of patches (lower is better)", "{:.3f}"),
    "layout": ("Fréchet distance of layouts (lower is better)", "{:.3f}"),
    "precision": ("Precision, the share among real images by nearest neighbours (higher is better)", "{:.1%}"),
    "recall": ("Recall, the share of real images among these (higher is better)", "{:.1%}"),
    "duplication": ("Duplication (0.5 is what real images have, 1 a tiling)", "{:.2f}"),
    "objects": ("Connected shapes per image (a real one has 1)", "{:.2f}"),
}
"""The figures that tables show, with their titles and forms."""
REAL = "real held-out images"


@dataclass(frozen=True)
class Cell:
    """The figures of a method at a size with a seed, or None and the error that stood in the way."""

    method: str
    seed: int
    size: Size
    figures: Figures | None
    error: str = ""


@dataclass(frozen=True)
class Entry:
    """A metric of a method at a size."""

    mean: float
    spread: float | None
    """Standard deviation over the seeds (of the sample, n - 1); None for one seed."""


@dataclass(frozen=True)
class Results:
    """Everything that tables and charts show."""

    command: str
    """What made them, to be given again."""
    note: str
    """How many images and steps stand behind them, as one sentence."""
    trained_size: Size
    sizes: tuple[Size, ...]
    methods: dict[str, str]
    """Name -> label, in the order of the rows."""
    entries: dict[tuple[str, Size], dict[str, Entry]]
    """By metric; a cell without any failed."""
    failed: dict[tuple[str, Size], int]
    """Seeds that failed, where there are such."""
    real: dict[Size, dict[str, float]]
    """The metrics of real held-out images."""
    errors: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """Those that were measured, in the order of METRICS."""
        return [name for name in METRICS if name in self.real[self.sizes[0]]]

    def select(self, methods: Sequence[str]) -> "Results":
        """The same with some of the methods, in that order. Raises ConfigError for one that is not there."""
        for name in methods:
            if name not in self.methods:
                raise ConfigError(f"methods: {name} is not among the results: {nearest(name, self.methods)}")
        return dataclasses.replace(self, methods={name: self.methods[name] for name in methods})


def summarise(
    config: StudyConfig,
    methods: Mapping[str, str],
    cells: Sequence[Cell],
    real: Mapping[Size, Figures],
    *,
    weights: str,
    command: str,
) -> Results:
    """Means and spreads of cells over the study's seeds. methods: names and labels. weights: what was measured."""
    entries, failed = {}, {}
    for name in methods:
        for size in config.image_sizes:
            ours = [cell for cell in cells if (cell.method, cell.size) == (name, size)]
            entries[name, size] = _entries([cell.figures for cell in ours if cell.figures is not None])
            if lost := sum(cell.figures is None for cell in ours):
                failed[name, size] = lost
    count, num_real = config.images_per_cell, next(iter(real.values())).num_samples
    errors = dict.fromkeys(f"{c.method}, seed {c.seed}: {c.error}" for c in cells if c.figures is None)
    return Results(
        command=command,
        note=f"Per cell {count} images of each of {len(config.seeds)} seed(s), {num_real} real ones; {weights}.",
        trained_size=config.trained_size,
        sizes=config.image_sizes,
        methods=dict(methods),
        entries=entries,
        failed=failed,
        real={size: {k: v for k, v in dataclasses.asdict(f).items() if v is not None} for size, f in real.items()},
        errors=tuple(errors),
    )


def _entries(figures: Sequence[Figures]) -> dict[str, Entry]:
    entries = {}
    for name in METRICS:
        values = [getattr(f, name) for f in figures if getattr(f, name) is not None]
        if values:
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            entries[name] = Entry(float(np.mean(values)), spread)
    return entries


def write_results(results: Results, path: Path, more: Mapping[str, Any]) -> None:
    """Writes JSON for `read_results`, with `more` beside it; a list has a line for each of its items."""
    parts = [f"  {json.dumps(key)}: {_dump(value)}" for key, value in (_to_json(results) | more).items()]
    write_whole(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _dump(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"    {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n  ]"
    return json.dumps(value, ensure_ascii=False)


def _to_json(results: Results) -> dict[str, Any]:
    summary = [
        {
            "method": name,
            "size": list(size),
            "failed": results.failed.get((name, size), 0),
            **{metric: [entry.mean, entry.spread] for metric, entry in results.entries[name, size].items()},
        }
        for name in results.methods
        for size in results.sizes
    ]
    return {
        "command": results.command,
        "note": results.note,
        "trained_size": list(results.trained_size),
        "methods": results.methods,
        "summary": summary,
        "real": [{"size": list(size), **figures} for size, figures in results.real.items()],
        "errors": list(results.errors),
    }


def read_results(path: Path) -> Results:
    """The results in a study's results.json, or in a page's file of that form. Raises DataError for another file."""
    if not path.exists():
        raise DataError(f"{path} does not exist: give a study's results.json")
    try:
        fields = dict(command=str, note=str, trained_size=list, methods=dict, summary=list, real=list, errors=list)
        values = read_json(path, fields=fields)
        cells = {(c["method"], tuple(c["size"])): c for c in values["summary"]}
        real = [dict(figures) for figures in values["real"]]
        results = Results(
            command=values["command"],
            note=values["note"],
            trained_size=tuple(values["trained_size"]),
            sizes=tuple(tuple(figures["size"]) for figures in real),
            methods=values["methods"],
            entries={key: {m: Entry(*c[m]) for m in METRICS if m in c} for key, c in cells.items()},
            failed={key: c["failed"] for key, c in cells.items() if c["failed"]},
            real={tuple(figures.pop("size")): figures for figures in real},
            errors=tuple(values["errors"]),
        )
        _check_figures(results)
        return results
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as the results of a study ({error}): give a results.json") from error


def _check_figures(results: Results) -> None:
    """Raises ValueError or KeyError unless there is a cell for each method and size, and figures are numbers."""
    if not results.sizes or not results.methods:
        raise ValueError("it has no cells")
    cells = [results.entries[name, size].values() for name in results.methods for size in results.sizes]
    figures = [number for cell in cells for entry in cell for number in (entry.mean, entry.spread)]
    figures += [number for figures in results.real.values() for number in figures.values()]
    if wrong := [number for number in figures if number is not None and not isinstance(number, int | float)]:
        raise ValueError(f"{wrong[0]!r:.40} is no number")
