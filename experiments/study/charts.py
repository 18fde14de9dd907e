"""Charts of a study: a metric against the size, a line for each method."""

from pathlib import Path

import numpy as np

from experiments.sizes import relative_size, size_name
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
    if metric in ("frechet", "patches"):
        axes.set_yscale("log")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
