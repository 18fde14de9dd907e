"""Charts of a study: a metric against the size, or at each size against something else; a line for each method."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.sizes import Size, relative_size, size_name
from experiments.study.results import METRICS, REAL, Results


def metric_chart(results: Results, metric: str, path: Path) -> None:
    """Draws a PNG with the spread over the seeds at each point; real images are dashed."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(results.sizes))
    for index, (name, label) in enumerate(results.methods.items()):
        entries = [results.entries[name, size].get(metric) for size in results.sizes]
        means = [np.nan if entry is None else entry.mean for entry in entries]
        spreads = [0.0 if entry is None else entry.spread or 0.0 for entry in entries]
        style = {"color": f"C{index % 10}", "linestyle": ("-", "--", ":", "-.")[index // 10 % 4]}
        error_bars = spreads if any(spreads) else None
        axes.errorbar(places, means, error_bars, marker="o", markersize=4, capsize=3, label=label, **style)
    real = [results.real[size][metric] for size in results.sizes]
    axes.plot(places, real, color="black", linestyle=(0, (1, 2)), label=REAL)
    axes.set_xticks(places, [f"{size_name(s)}\n{relative_size(s, results.trained_size)}" for s in results.sizes])
    axes.set(xlabel="height x width, against the training size", ylabel=METRICS[metric][0])
    if metric in ("frechet", "patches", "layout"):
        axes.set_yscale("log")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def lines_chart(
    lines: Mapping[str, Mapping[Size, tuple[Sequence[float], Sequence[float]]]],
    metric: str,
    trained_size: Size,
    xlabel: str,
    path: Path,
    *,
    doublings: bool = False,
) -> None:
    """Draws a PNG: axes for each size, a line for each method.

    lines: label -> size -> values across and the metric there. doublings: whether the values across are on a
    logarithmic axis, each with its mark.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    sizes = list(next(iter(lines.values())))
    figure = Figure(figsize=(4 * len(sizes) + 3, 4), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for size, axes in zip(sizes, panels, strict=True):
        for label, by_size in lines.items():
            axes.plot(*by_size[size], marker="o", markersize=4, label=label)
        axes.set(title=f"{size_name(size)} ({relative_size(size, trained_size)})", xlabel=xlabel)
        if doublings:
            values = sorted({value for by_size in lines.values() for value in by_size[size][0]})
            axes.set_xscale("log")
            axes.set_xticks(values, map(str, values), minor=False)
            axes.minorticks_off()
        else:
            axes.locator_params(axis="x", nbins=4)  # room for five digits
        axes.set_yscale("linear" if metric == "accuracy" else "log")
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    panels[0].set_ylabel(METRICS[metric][0].partition(" (")[0])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(path, format="png")
