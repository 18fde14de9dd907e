"""The coordinate task with one thing changed at a time: the training steps, the side of the grid, the width."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from experiments.theory.coordinate_arms import ARMS
from experiments.theory.coordinate_cells import Outcomes
from experiments.theory.coordinate_task import Task, grid_name
from ledit_jax.flops import train_step_flops
from ledit_jax.models import abstract_params

LONG, SHORT = Task(steps=2_000), Task()
"""The task of the sweep over steps, and what the others change one setting of."""
SWEEPS: dict[str, tuple[int, ...]] = {
    "steps": (100, 150, 200, 300, 400, 500, 750, 1_000, 1_500, 2_000),
    "side": (4, 6, 8, 12, 16),
    "width": (16, 32, 64, 128),
}
_METHODS = {"rope": ("riflex", "yarn")}
"""Rope methods that are shown; of other networks the only one."""


@dataclass(frozen=True)
class Point:
    """A network in one sweep, means over the seeds."""

    arm: str
    method: str
    sweep: str
    value: int
    teraflops: float
    """What the training had cost, in 10^12 operations."""
    errors: tuple[float, float, float]
    """On the trained grid, at one and a half times its side, and at twice."""
    border: tuple[float, float]
    """At the trained grid's border and inside, as shares of always answering the middle there, by the first method."""

    @property
    def line(self) -> str:
        """The label of the line that it belongs to."""
        return ARMS[self.arm].label_of(self.method)


def sweep_task(sweep: str, value: int) -> Task:
    """The training that a point is read from; SHORT is a reading on the way of LONG."""
    if sweep == "steps" or getattr(SHORT, sweep) == value:
        return LONG
    return dataclasses.replace(SHORT, **{sweep: value})


def sweep_tasks() -> list[Task]:
    """Every training of the sweeps, once."""
    return list(dict.fromkeys(sweep_task(sweep, value) for sweep, values in SWEEPS.items() for value in values))


def task_name(task: Task) -> str:
    """A folder's name: "side-8-width-64-steps-500"."""
    return f"side-{task.side}-width-{task.width}-steps-{task.steps}"


def points_of(found: dict[Task, Outcomes]) -> list[Point]:
    """What can be read of the outcomes that are there."""
    points = []
    for name in dict.fromkeys(name for outcomes in found.values() for name in outcomes):
        for method in _METHODS.get(name, ARMS[name].rope_methods):
            for sweep, values in SWEEPS.items():
                tasks = {value: sweep_task(sweep, value) for value in values}
                points += [
                    _point(name, method, sweep, value, task, found[task])
                    for value, task in tasks.items()
                    if name in found.get(task, {})
                ]
    return points


def _point(name: str, method: str, sweep: str, value: int, task: Task, outcomes: Outcomes) -> Point:
    steps = value if sweep == "steps" else SHORT.steps
    network = ARMS[name].network(task.trained, task.width)
    cost = steps * train_step_flops(abstract_params(network), task.trained, task.batch) / 1e12
    readings = [outcome.curve[str(steps)][method] for outcome in outcomes[name]]
    errors = [float(np.mean([reading[grid_name(grid)] for reading in readings])) for grid in task.curve_grids]
    border = np.mean([outcome.border[str(steps)] for outcome in outcomes[name]], axis=0).tolist()
    return Point(name, method, sweep, value, cost, tuple(errors), tuple(border))
