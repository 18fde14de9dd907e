"""The coordinate task, scaled: which trainings a sweep needs, what is read from them, and the lines through it."""

import json
import math

import pytest
from PIL import Image

from experiments.theory.coordinate_arms import ARMS
from experiments.theory.coordinate_cells import Outcomes
from experiments.theory.coordinate_scaling import error_at_each_doubling, paper_table, sweep_table, write_page
from experiments.theory.coordinate_sweeps import LONG, SWEEPS, Point, points_of, sweep_task, sweep_tasks, task_name
from experiments.theory.coordinate_task import CURVE_STEPS, Outcome, Task, grid_name
from ledit_jax.models import abstract_params

NETWORKS = ("single-identity-norm", "rope")


def law(task: Task, steps: int) -> float:
    """An error that falls with each doubling: by half with steps, to four fifths with width, not with the side."""
    return 0.02 * (500 / steps) * (4 / 5) ** math.log2(task.width / 64)


def by_the_law(task: Task) -> Outcomes:
    def outcome(name: str) -> Outcome:
        steps = [*(step for step in CURVE_STEPS if step < task.steps), task.steps]
        grids = {step: {grid_name(grid): law(task, step) for grid in task.curve_grids} for step in steps}
        curve = {str(step): dict.fromkeys(ARMS[name].rope_methods, grids[step]) for step in steps}
        return Outcome(curve, {}, {}, {str(step): [25 / step, 50 / step] for step in steps})

    return {name: [outcome(name)] for name in NETWORKS}


@pytest.fixture(scope="module")
def points() -> list[Point]:
    return points_of({task: by_the_law(task) for task in sweep_tasks()})


def test_a_sweep_changes_one_setting_and_shares_what_it_can():
    tasks = sweep_tasks()
    assert tasks[0] == LONG and len(tasks) == len(set(map(task_name, tasks))) == 8
    assert all((task.steps == 500) + (task.side == 8) + (task.width == 64) == 2 for task in tasks)
    assert sweep_task("width", 64) == sweep_task("side", 8) == sweep_task("steps", 100) == LONG
    assert set(SWEEPS["steps"]) <= {*CURVE_STEPS, LONG.steps}
    for task in tasks:
        for name in NETWORKS:
            assert abstract_params(ARMS[name].network(task.trained, task.width))


def test_points_are_read_at_the_right_step_with_what_they_cost(points):
    assert {point.line for point in points} == {
        "LEDiT, one causal layer, identity, norm",
        "RoPE + RIFLEx",
        "RoPE + YaRN",
    }
    ours = {(point.sweep, point.value): point for point in points if point.method == "riflex"}
    assert len(ours) == sum(map(len, SWEEPS.values()))
    for (sweep, value), point in ours.items():
        assert point.errors == (law(sweep_task(sweep, value), value if sweep == "steps" else 500),) * 3
    assert ours["steps", 2_000].teraflops == pytest.approx(4 * ours["side", 8].teraflops)
    # Four times the tokens, and sixteen times the scores; twice the width, and most kernels four times.
    assert 4 < ours["side", 16].teraflops / ours["side", 8].teraflops < 8
    assert 3 < ours["width", 128].teraflops / ours["width", 64].teraflops < 4


def test_a_power_law_is_found_and_followed_to_the_papers_scale(points):
    ours = [point for point in points if point.method == "riflex"]
    factors = {sweep: error_at_each_doubling([p for p in ours if p.sweep == sweep]) for sweep in SWEEPS}
    assert factors == pytest.approx({"steps": 0.5, "side": 1.0, "width": 0.8})
    assert math.isnan(error_at_each_doubling(ours[:1]))
    leads = 0.02 * 500 / 400_000 * 0.8 ** math.log2(1_152 / 64)
    assert f" {leads:.2g} " in paper_table(points)
    table = sweep_table(points, "width")
    assert (
        "| width " in table and "| 0.80 " in table and "0.0250" in table and "10^12 FLOPs (LEDiT, one causal" in table
    )
    assert "always the middle" in sweep_table(points, "side")
    assert "always the middle" not in table


def test_what_is_there_is_shown_where_others_are_missing(points, tmp_path):
    some = points_of({LONG: by_the_law(LONG), sweep_task("side", 4): {}})
    assert len(some) == 3 * (len(SWEEPS["steps"]) + 2)
    assert "|  " in sweep_table(some, "side")
    tables = write_page(points, "make this", tmp_path)
    assert tables.count("at each doubling") == 3 and "where the lines lead" in tables
    assert "| 25%, 50% " in tables and tables.count("| 5%, 10% ") == len(NETWORKS)
    page = json.loads((tmp_path / "coordinate-scaling.json").read_text())
    assert page["command"] == "make this" and len(page["points"]) == len(points)
    with Image.open(tmp_path / "coordinate-scaling.png") as image:
        assert image.width > 500
