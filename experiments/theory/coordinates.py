"""Which network finds out where a token is, and does it still know on a larger grid? A task that takes a minute.

  python -m experiments.theory.coordinates --workdir=runs/coordinates --out=docs/positions --seeds=0,1

Networks of width 64 and four blocks are shown noise on 8x8 tokens and learn to answer each token's (row, column) as
shares of the canvas, in 500 steps; then they are read on other grids, with the same weights. The error is the mean
square; who always answers the middle has 0.082 at 8x8 (`coordinate_task.centre_error`). --arms chooses networks.
WORKDIR keeps a file for each network and seed, and the same command goes on with those that are missing. --out gets
coordinates.json and coordinates.png of all that is there, and the table is printed; --train=false makes them of what
is there already.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from experiments.theory.coordinate_arms import ARMS, find_arm
from experiments.theory.coordinate_cells import Outcomes, open_cells, parse_seeds, read_cells, rounded, run_cells
from experiments.theory.coordinate_task import Task, centre_error, grid_name
from ledit_jax import cli
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.tables import markdown
from ledit_jax.files import check_place, check_writable, write_whole

_SHOWN = ("inclusive-xavier-norm", "single-identity-norm", "d-xavier-norm", "d-identity", "conv-xavier-norm", "causal")
_SHOWN_RIVALS = ("rope", "rpe2d", "learnable", "sincos")


def error_table(outcomes: Outcomes, task: Task) -> str:
    """Markdown: networks down, grids across; mean over the seeds, with the standard deviation where there are several.

    The last column is twice the side without attention scaling; the last row always answers the middle.
    """
    names, twice, lines = [grid_name(grid) for grid in task.grids], grid_name(task.twice), []
    for name, found in outcomes.items():
        for method in found[0].errors:
            cells = [_mean([outcome.errors[method][grid] for outcome in found]) for grid in names]
            unscaled = _mean([outcome.unscaled[method][twice] for outcome in found])
            lines.append([ARMS[name].label_of(method), *cells, unscaled])
    centre = {grid_name(grid): f"{centre_error(grid):.4f}" for grid in task.grids}
    lines.append(["always the middle", *centre.values(), centre[twice]])
    return markdown(["network", f"{names[0]}, trained", *names[1:], f"{twice}, unscaled"], lines)


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def curve_figure(outcomes: Outcomes, path: Path) -> None:
    """Error against the training step, where it was trained and at twice the side; means over the seeds."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, grid, title in zip(panels, ("8x8", "16x16"), ("8x8, as trained", "16x16, the same weights"), strict=True):
        shown = [name for name in (*_SHOWN, *_SHOWN_RIVALS) if name in outcomes]
        for index, name in enumerate(shown):
            steps = list(outcomes[name][0].curve)
            errors = [np.mean([outcome.curve[step]["plain"][grid] for outcome in outcomes[name]]) for step in steps]
            style = "--" if name in _SHOWN_RIVALS else "-"
            label = ARMS[name].label if axes is panels[0] else None
            axes.plot([int(step) for step in steps], errors, style, marker=".", color=f"C{index}", label=label)
        axes.axhline(centre_error((8, 8)), color="black", linestyle=(0, (1, 2)))
        axes.set(title=title, xlabel="training step", yscale="log")
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("mean square error, shares of the canvas")
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(path, format="png")


def write_page(outcomes: Outcomes, task: Task, command: str, out: Path) -> None:
    """Writes coordinates.json, a line for each network, and coordinates.png."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [
        f"    {json.dumps(name)}: {json.dumps([rounded(outcome.to_dict()) for outcome in found])}"
        for name, found in outcomes.items()
    ]
    head = f'  "command": {json.dumps(command)},\n  "task": {json.dumps(vars(task))},\n'
    write_whole(out / "coordinates.json", "{\n" + head + '  "networks": {\n' + ",\n".join(lines) + "\n  }\n}\n")
    curve_figure(outcomes, out / "coordinates.png")


def main() -> None:
    arms = _ARMS.value or list(ARMS)
    for name in arms:
        find_arm(name)
    task = Task(steps=_STEPS.value)
    seeds = parse_seeds(_SEEDS.value)
    check_place(_WORKDIR.value)
    check_writable(Path(_OUT.value) / "coordinates.json")  # before what takes an hour
    folder = open_cells(Path(_WORKDIR.value), task)
    if _TRAIN.value:
        run_cells(folder, arms, seeds, task)
    outcomes = read_cells(folder, arms, seeds)
    if not outcomes:
        raise ConfigError(f"--workdir={_WORKDIR.value} has none of these networks: leave out --train=false")
    print(error_table(outcomes, task))
    command = shlex.join(["python", "-m", "experiments.theory.coordinates", *sys.argv[1:]])
    write_page(outcomes, task, command, Path(_OUT.value))
    print(f"\nWrote coordinates.json and coordinates.png to {_OUT.value}")


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "A file for each network and seed.")
    _OUT = flags.DEFINE_string("out", None, "Folder of the results and the figure.")
    _ARMS = flags.DEFINE_list("arms", None, f"Some of {', '.join(ARMS)}. Default: all.")
    _SEEDS = flags.DEFINE_list("seeds", "0,1", "Of the weights and the noise in training.")
    _STEPS = flags.DEFINE_integer("steps", 500, "Training steps.", lower_bound=1)
    _TRAIN = flags.DEFINE_bool("train", True, "Whether to train what is missing.")
    flags.mark_flags_as_required(["workdir", "out"])
    cli.run(main, __doc__)
