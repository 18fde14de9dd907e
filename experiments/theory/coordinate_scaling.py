"""How fast does each network learn where a token is, and what would more help? The coordinate task, scaled.

  python -m experiments.theory.coordinate_scaling --workdir=runs/coordinate_scaling --out=docs/positions

A network of width 64 learns the task of `coordinates` on 8x8 tokens for 2,000 steps, and is read on the way: on its own
grid, at one and a half times its side, and at twice. Others learn for 500 steps, on grids of 4x4 to 16x16 tokens or
with widths of 16 to 128. WORKDIR keeps a file for each network, task and seed; the same command goes on with those
that are missing. --out gets coordinate-scaling.json and coordinate-scaling.png of all that is there. Printed are the
error at twice the side, what a doubling multiplies it by (least squares on logarithms), where these lines lead at the
paper's scale, if they are straight and do not depend on one another, and what is left of the error at the border of the
trained grid and inside. --train=false makes them of what is there.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from experiments.doublings import at_each_doubling
from experiments.theory.coordinate_arms import ARMS, find_arm
from experiments.theory.coordinate_cells import open_cells, parse_seeds, read_cells, rounded, run_cells
from experiments.theory.coordinate_sweeps import LONG, SHORT, SWEEPS, Point, points_of, sweep_tasks, task_name
from experiments.theory.coordinate_task import centre_error
from ledit_jax import cli
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.tables import markdown
from ledit_jax.files import check_place, check_writable, write_whole

PAPER = {"steps": 400_000, "side": 16, "width": 1_152}
"""LEDiT-XL/2, trained at 256x256."""
_SETTLED = {"steps": 500}
"""Where a line begins; before, the network has not found its way."""
_ARMS = ("single-identity-norm", "rope", "learnable", "conv-xavier-norm", "d-identity", "inclusive-xavier-norm")
_TITLES = {"steps": "training steps", "side": "side of the trained grid", "width": "width"}


def error_at_each_doubling(points: Sequence[Point]) -> float:
    """What the error at twice the side is multiplied by when the value doubles, in one sweep and line; or nan."""
    settled = [point for point in points if point.value >= _SETTLED.get(point.sweep, 0)]
    return at_each_doubling([point.value for point in settled], [point.errors[2] for point in settled])


def sweep_table(points: Sequence[Point], sweep: str) -> str:
    """Markdown: lines down, values across, the error at twice the side in the cells; then what a doubling does."""
    ours = [point for point in points if point.sweep == sweep]
    rows = []
    for line in dict.fromkeys(point.line for point in ours):
        there = {point.value: point for point in ours if point.line == line}
        cells = [f"{there[value].errors[2]:.4f}" if value in there else "" for value in SWEEPS[sweep]]
        rows.append([line, *cells, _figure(error_at_each_doubling(list(there.values())), ".2f")])
    if sweep == "side":
        rows.append(["always the middle", *(f"{centre_error((2 * side,) * 2):.4f}" for side in SWEEPS[sweep]), ""])
    first = {point.value: point.teraflops for point in ours if point.line == ours[0].line}
    costs = [f"{first[value]:.3g}" if value in first else "" for value in SWEEPS[sweep]]
    rows.append([f"10^12 FLOPs ({ours[0].line})", *costs, ""])
    return markdown([_TITLES[sweep], *(f"{value:,}" for value in SWEEPS[sweep]), "at each doubling"], rows)


def border_table(points: Sequence[Point]) -> str:
    """Markdown: networks down, training steps across; what is left of the error at the border, and inside."""
    left = {(point.arm, point.value): point.border for point in points if point.sweep == "steps"}
    values = dict.fromkeys(value for _, value in left)
    rows = [
        [ARMS[arm].label, *("{:.0%}, {:.0%}".format(*left[arm, value]) for value in values)]
        for arm in dict.fromkeys(arm for arm, _ in left)
    ]
    return markdown(["left at the border, inside", *(f"{value:,}" for value in values)], rows)


def paper_table(points: Sequence[Point]) -> str:
    """Markdown: each line's error at twice the side as measured, and where its three lines lead at PAPER."""
    rows = []
    for line in dict.fromkeys(point.line for point in points):
        ours = {sweep: [p for p in points if p.line == line and p.sweep == sweep] for sweep in SWEEPS}
        start = next((p.errors[2] for p in ours["steps"] if p.value == SHORT.steps), float("nan"))
        doublings = {sweep: np.log2(value / getattr(SHORT, sweep)) for sweep, value in PAPER.items()}
        factors = [error_at_each_doubling(ours[sweep]) ** doublings[sweep] for sweep in SWEEPS]
        cells = [_figure(value, ".2g") for value in (*factors, start * np.prod(factors))]
        rows.append([line, _figure(start, ".4f"), *cells])
    titles = [f"{_TITLES[sweep]} {getattr(SHORT, sweep):,} to {value:,}" for sweep, value in PAPER.items()]
    return markdown(["network", "measured", *titles, "where the lines lead"], rows)


def _figure(value: float, style: str) -> str:
    return "" if np.isnan(value) else format(value, style)


def scaling_figure(points: Sequence[Point], path: Path) -> None:
    """A row of axes for each grid that is read, a column for each sweep; logarithmic."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    figure = Figure(figsize=(12, 9), dpi=100, layout="constrained")
    panels = figure.subplots(3, len(SWEEPS), sharex="col", sharey=True)
    lines = list(dict.fromkeys(point.line for point in points))
    for row, size in enumerate(("the trained grid", "1.5 times its side", "twice its side")):
        for axes, sweep in zip(panels[row], SWEEPS, strict=True):
            for index, line in enumerate(lines):
                ours = [point for point in points if (point.line, point.sweep) == (line, sweep)]
                style = "-" if line.startswith("LEDiT") else "--"
                xs, ys = [point.value for point in ours], [point.errors[row] for point in ours]
                axes.plot(xs, ys, style, marker=".", color=f"C{index}", label=line)
            axes.set(xscale="log", yscale="log", title=size if sweep == "side" else "")
            axes.set_xticks(SWEEPS[sweep], [f"{value:,}" for value in SWEEPS[sweep]], fontsize=7, minor=False)
            axes.minorticks_off()
            axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            if row == 2:
                axes.set_xlabel(_TITLES[sweep])
    panels[1][0].set_ylabel("mean square error, shares of the canvas")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, format="png")


def write_page(points: Sequence[Point], command: str, out: Path) -> str:
    """Writes coordinate-scaling.json, a line for each point, and coordinate-scaling.png; returns the tables."""
    out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"    {json.dumps(rounded(dataclasses.asdict(point)))}" for point in points)
    tasks = f'  "long": {json.dumps(vars(LONG))},\n  "short": {json.dumps(vars(SHORT))},\n'
    head = f'  "command": {json.dumps(command)},\n{tasks}'
    write_whole(out / "coordinate-scaling.json", "{\n" + head + '  "points": [\n' + lines + "\n  ]\n}\n")
    scaling_figure(points, out / "coordinate-scaling.png")
    tables = [*(sweep_table(points, sweep) for sweep in SWEEPS), paper_table(points), border_table(points)]
    return "\n\n".join(tables)


def main() -> None:
    arms = _CHOSEN.value or list(_ARMS)
    for name in arms:
        find_arm(name)
    seeds = parse_seeds(_SEEDS.value)
    check_place(_WORKDIR.value)
    check_writable(Path(_OUT.value) / "coordinate-scaling.json")  # before what takes an hour
    folders = {task: open_cells(Path(_WORKDIR.value) / task_name(task), task) for task in sweep_tasks()}
    for name in arms if _TRAIN.value else ():
        for task, folder in folders.items():
            run_cells(folder, [name], seeds, task)
    points = points_of({task: read_cells(folder, arms, seeds) for task, folder in folders.items()})
    if not points:
        raise ConfigError(f"--workdir={_WORKDIR.value} has none of these networks: leave out --train=false")
    command = shlex.join(["python", "-m", "experiments.theory.coordinate_scaling", *sys.argv[1:]])
    print(write_page(points, command, Path(_OUT.value)))
    print(f"\nWrote coordinate-scaling.json and coordinate-scaling.png to {_OUT.value}")


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "A folder for each task, with a file for each network and seed.")
    _OUT = flags.DEFINE_string("out", None, "Folder of the results and the figure.")
    _CHOSEN = flags.DEFINE_list("arms", None, f"Some of {', '.join(ARMS)}. Default: {','.join(_ARMS)}.")
    _SEEDS = flags.DEFINE_list("seeds", "0", "Of the weights and the noise in training.")
    _TRAIN = flags.DEFINE_bool("train", True, "Whether to train what is missing.")
    flags.mark_flags_as_required(["workdir", "out"])
    cli.run(main, __doc__)
