"""Pages of methods that were drawn with several numbers of network calls ("ledit@ddim-8"): tables, a chart, sheets."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.sizes import Size, relative_size, size_name
from experiments.study.images import Samples
from experiments.study.methods import find_method, split_name
from experiments.study.results import METRICS, REAL, Results
from ledit_jax.evaluation.tables import markdown
from ledit_jax.sampling.sheets import Panel, save_sheet

SHOWN = ("accuracy", "frechet")
"""What the pages show."""
_CLASSES = (2, 3, 5, 8)
"""Rows of a sheet's panels."""
_MISSING = "–"


def is_by_calls(name: str) -> bool:
    """Whether a method's name says how many network calls it was drawn with."""
    return split_name(name)[1] is not None


def calls_table(results: Results, size: Size) -> str:
    """Markdown of one size: methods and samplers down, calls across; "share read right, Frechet distance" in cells."""
    lines = [
        [label, *(_cell(results, by_calls.get(count), size) for count in _counts(results))]
        for label, by_calls in _rows(results).items()
    ]
    real = ", ".join(METRICS[metric][1].format(results.real[size][metric]) for metric in SHOWN)
    lines.append([REAL, real, *("" for _ in _counts(results)[1:])])
    return markdown([_title(results, size), *map(str, _counts(results))], lines)


def calls_chart(results: Results, path: Path) -> None:
    """Draws a PNG: each metric against the calls, a column of axes for each size."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    figure = Figure(figsize=(4.2 * len(results.sizes) + 3, 7), dpi=120, layout="constrained")
    grid = figure.subplots(len(SHOWN), len(results.sizes), sharex=True, squeeze=False)
    for metric, line in zip(SHOWN, grid, strict=True):
        for size, axes in zip(results.sizes, line, strict=True):
            for index, (label, by_calls) in enumerate(_rows(results).items()):
                points = {n: results.entries[name, size].get(metric) for n, name in sorted(by_calls.items())}
                points = {n: entry.mean for n, entry in points.items() if entry is not None}
                style = {"color": f"C{index % 10}", "linestyle": ("-", "--")[index // 10 % 2]}
                axes.plot(list(points), list(points.values()), marker="o", markersize=4, label=label, **style)
            axes.set_xscale("log")
            axes.set_xticks(_counts(results), map(str, _counts(results)), minor=False)
            axes.set_xticks([], minor=True)
            axes.grid(color="#e4e4e4", linewidth=0.6)
            if metric != "frechet":  # where real images are far below: the table has them
                axes.axhline(results.real[size][metric], color="black", linestyle=(0, (1, 2)), label=REAL)
                axes.set_ylim(0, 1.03)
        line[0].set_ylabel(METRICS[metric][0].partition(" (")[0])
    for size, top, bottom in zip(results.sizes, grid[0], grid[-1], strict=True):
        top.set_title(_title(results, size))
        bottom.set_xlabel("network calls")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def calls_sheet(results: Results, size: Size, images: Mapping[tuple[str, Size], Samples], path: Path) -> None:
    """A panel for each method and sampler: classes down, calls across, from the same noise everywhere.

    images: by method and size; what was not drawn stays white.
    """
    panels = []
    for label, by_calls in _rows(results).items():
        drawn = {count: images[name, size] for count, name in by_calls.items() if (name, size) in images}
        if not drawn:
            continue
        blank = np.full_like(next(iter(drawn.values())).images[0], 255)
        rows = [
            _first(drawn[count], label_wanted) if count in drawn else blank
            for label_wanted in _classes(drawn)
            for count in _counts(results)
        ]
        panels.append(Panel(label, f"{size[0]} x {size[1]}, by network calls", np.stack(rows), len(_counts(results))))
    if panels:
        save_sheet(panels, path, [str(count) for count in _counts(results)], scale=max(1, 48 // size[0]))


def _rows(results: Results) -> dict[str, dict[int, str]]:
    """Label of a method and its sampler -> calls -> the method's whole name."""
    rows: dict[str, dict[int, str]] = {}
    for name in filter(is_by_calls, results.methods):
        plain, sampler, calls = split_name(name)
        rows.setdefault(f"{find_method(plain).label}, {sampler}", {})[calls] = name
    return rows


def _counts(results: Results) -> list[int]:
    return sorted({calls for by_calls in _rows(results).values() for calls in by_calls})


def _title(results: Results, size: Size) -> str:
    return f"{size_name(size)} ({relative_size(size, results.trained_size)})"


def _cell(results: Results, name: str | None, size: Size) -> str:
    if name is None:
        return _MISSING
    entries = results.entries[name, size]
    return ", ".join(METRICS[m][1].format(entries[m].mean) for m in SHOWN) if entries else "failed"


def _classes(drawn: Mapping[int, Samples]) -> list[int]:
    """Those of `_CLASSES` that were drawn, or the first ones."""
    there = np.unique(next(iter(drawn.values())).labels).tolist()
    return [label for label in _CLASSES if label in there] or there[: len(_CLASSES)]


def _first(samples: Samples, label: int) -> np.ndarray:
    return samples.images[samples.labels == label][0]
