"""Loss curves of runs, from metrics.jsonl to PNG; nothing here opens a window."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ledit_jax.errors import DataError

_LINE = "#2563a8"


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
