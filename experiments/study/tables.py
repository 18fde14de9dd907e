"""The tables of a study in all their forms, and the command that makes a page's tables from the JSON beside it.

  python -m experiments.study.tables --results=docs/extrapolation/digits.json --methods=ledit,dit,nope
  python -m experiments.study.tables --results=docs/extrapolation/digits.json --charts=docs/extrapolation

--charts=FOLDER draws a chart of every metric to FOLDER/NAME-METRIC.png, where NAME is the file's. --metrics chooses.
"""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments.sizes import Size, relative_size, size_name
from experiments.study.calls import calls_table, is_by_calls
from experiments.study.charts import metric_chart
from experiments.study.reference import Figures
from experiments.study.results import METRICS, REAL, Cell, Results, read_results, write_results
from ledit_jax import cli
from ledit_jax.errors import ConfigError, nearest
from ledit_jax.evaluation.tables import markdown
from ledit_jax.files import write_whole


def metric_table(results: Results, metric: str) -> str:
    """Markdown: methods down and sizes across; mean and standard deviation over the seeds, "failed" where none is."""
    form = METRICS[metric][1]
    lines = [
        [label, *(_entry(results, name, size, metric, form) for size in results.sizes)]
        for name, label in results.methods.items()
    ]
    lines.append([REAL, *(form.format(results.real[size][metric]) for size in results.sizes)])
    return markdown(["method", *_size_titles(results)], lines)


def _size_titles(results: Results) -> list[str]:
    return [f"{size_name(size)} ({relative_size(size, results.trained_size)})" for size in results.sizes]


def _entry(results: Results, name: str, size: Size, metric: str, form: str) -> str:
    entry = results.entries[name, size].get(metric)
    if entry is None:
        return "failed"
    spread = "" if entry.spread is None else f" ± {form.format(entry.spread)}"
    lost = results.failed.get((name, size), 0)
    return form.format(entry.mean) + spread + (f" ({lost} failed)" if lost else "")


def method_table(results: Results, metrics: Sequence[str]) -> str:
    """Markdown for results of one method: metrics down and sizes across, the figures of real images in brackets."""
    ((name, label),) = results.methods.items()
    lines = []
    for metric in metrics:
        form = METRICS[metric][1]
        figures = [(_entry(results, name, size, metric, form), results.real[size][metric]) for size in results.sizes]
        lines.append([metric, *(f"{entry} ({form.format(real)})" for entry, real in figures)])
    return markdown([f"{label} ({REAL})", *_size_titles(results)], lines)


def all_tables(results: Results, metrics: Sequence[str]) -> str:
    """A table for each metric, or one for a single method; how much was measured, and the errors of what failed.

    Methods drawn with several numbers of calls have a table for each size instead, of share and distance alone.
    """
    by_calls = [name for name in results.methods if is_by_calls(name)]
    if by_calls:
        plain = results.select([name for name in results.methods if name not in by_calls])
        parts = [calls_table(results, size) for size in results.sizes]
        parts += [metric_table(plain, metric) for metric in metrics if plain.methods]
    elif len(results.methods) == 1:
        titles = "\n".join(f"- {metric}: {METRICS[metric][0]}" for metric in metrics)
        parts = [method_table(results, metrics), titles]
    else:
        parts = [f"{METRICS[metric][0]}:\n\n{metric_table(results, metric)}" for metric in metrics]
    parts.append(results.note)
    if results.errors:
        parts.append("Failed:\n\n" + "\n".join(f"- {error}" for error in results.errors))
    return "\n\n".join(parts)


def write_tables(results: Results, cells: Sequence[Cell], study: dict[str, Any], folder: Path) -> None:
    """Writes table.md, table.csv (a line for each cell) and results.json to `folder`, and prints the tables.

    study: the settings behind the cells; both stand in the JSON as well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = all_tables(results, results.metrics)
    write_whole(folder / "table.md", tables + "\n")
    write_whole(folder / "table.csv", _csv(cells))
    more = {
        "cells": [dataclasses.asdict(cell) for cell in cells],
        "study": study,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    write_results(results, folder / "results.json", more)
    print(f"\n{tables}")


def _csv(cells: Sequence[Cell]) -> str:
    names = [field.name for field in dataclasses.fields(Figures)]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["method", "seed", "height", "width", *names, "error"])
    for cell in cells:
        figures = ["" for _ in names] if cell.figures is None else dataclasses.astuple(cell.figures)
        writer.writerow([cell.method, cell.seed, *cell.size, *figures, cell.error])
    return text.getvalue()


def main() -> None:
    values = flags.FLAGS
    path = Path(values.results)
    results = read_results(path)
    results = results.select(values.methods) if values.methods else results
    metrics = values.metrics or results.metrics
    for metric in metrics:
        if metric not in results.metrics:
            raise ConfigError(f"--metrics: {metric} was not measured: {nearest(metric, results.metrics)}")
    print(all_tables(results, metrics))
    for metric in metrics if values.charts else ():
        metric_chart(results, metric, Path(values.charts) / f"{path.stem}-{metric}.png")


if __name__ == "__main__":
    flags.DEFINE_string("results", None, "results.json of a study, or a page's file of that form.")
    flags.DEFINE_list("methods", None, "Rows, by the methods' names. Default: all.")
    flags.DEFINE_list("metrics", None, f"Some of {', '.join(METRICS)}. Default: all that were measured.")
    flags.DEFINE_string("charts", None, "Folder for a chart of each of these metrics.")
    cli.require("results")
    cli.run(main, __doc__)
