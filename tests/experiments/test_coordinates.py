"""The coordinate task: what is asked for, a network that learns it, and cells that are made once."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from experiments.theory import coordinate_cells, coordinate_task
from experiments.theory.coordinate_arms import ARMS, find_arm
from experiments.theory.coordinate_cells import open_cells, read_cells, run_cells
from experiments.theory.coordinate_task import Outcome, Task, centre_error, places, train_and_read
from experiments.theory.coordinates import curve_figure, error_table, write_page
from ledit_jax.config import ModelConfig
from ledit_jax.config.parse import from_mapping
from ledit_jax.errors import ConfigError

TASK = Task(steps=60, batch=8, learning_rate=1e-2, side=4)


@pytest.fixture
def small_grids(monkeypatch):
    monkeypatch.setattr(Task, "grids", ((4, 4), (4, 6)))
    monkeypatch.setattr(Task, "curve_grids", ((4, 4),))
    monkeypatch.setattr(Task, "twice", (4, 6))
    monkeypatch.setattr(coordinate_task, "CURVE_STEPS", (1,))
    monkeypatch.setattr(coordinate_task, "_TOKENS_READ", 64)


def test_places_are_the_centres_of_tokens():
    found = places((2, 4))
    assert found[1, 3].tolist() == [0.25, 0.375] and np.all(found + found[::-1, ::-1] == 0)
    assert centre_error((8, 8)) == pytest.approx(63 / (12 * 64))
    assert centre_error((8, 16)) == pytest.approx((63 / 64 + 255 / 256) / 24)


def test_a_network_with_positions_learns_them_and_one_without_does_not(small_grids):
    known, unknown = (train_and_read(ARMS[name], TASK, 0, name) for name in ("sincos", "nope"))
    centre = centre_error((4, 4))
    assert known.errors["plain"]["4x4"] < 0.1 * centre < 0.9 * centre < unknown.errors["plain"]["4x4"]
    assert list(known.curve) == ["1", "60"] and known.curve["60"]["plain"]["4x4"] == known.errors["plain"]["4x4"]
    assert known.curve["1"]["plain"]["4x4"] > 0.5 * centre
    # Twelve tokens lie at the border, far from the middle, and four inside.
    shares, parts = known.border["60"], np.mean(places((4, 4)) ** 2, axis=-1)
    border, inside = parts[0].sum() * 2 + parts[1:3, [0, 3]].sum(), parts[1:3, 1:3].sum()
    mean = (shares[0] * border + shares[1] * inside) / 16
    assert mean == pytest.approx(known.errors["plain"]["4x4"], rel=1e-4)
    # Attention scaling is on where the grid is larger, and only there.
    assert known.unscaled["plain"]["4x6"] != known.errors["plain"]["4x6"]


def outcome(error: float) -> Outcome:
    """One whose figures are all alike."""
    grids = {"8x8": error, "12x12": error, "16x16": error, "32x32": error, "8x16": error}
    return Outcome(
        {"25": {"plain": grids}, "500": {"plain": grids}}, {"plain": grids}, {"plain": grids}, {"500": [0.1, 0.2]}
    )


def counted(calls: list) -> Callable[..., Outcome]:
    def train(arm, task, seed, caption):
        calls.append(caption)
        return outcome(0.01 + 0.02 * seed)

    return train


def test_cells_are_made_once_and_summed_up(tmp_path, monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr(coordinate_cells, "train_and_read", counted(calls))
    folder = open_cells(tmp_path / "cells", Task())
    run_cells(folder, ["sincos", "nope"], [0], Task())
    run_cells(folder, ["nope", "sincos"], [0, 1], Task())
    assert [call.replace(", 8x8, width 64", "") for call in calls] == [
        "sincos, seed 0",
        "nope, seed 0",
        "nope, seed 1",
        "sincos, seed 1",
    ]
    outcomes = read_cells(folder, ["sincos", "nope", "rope"], [0, 1])
    assert list(outcomes) == ["sincos", "nope"] and outcomes["nope"] == [outcome(0.01), outcome(0.03)]
    table = error_table(outcomes, Task())
    assert "| Sin/cos           | 0.0200 ± 0.0141 |" in table and "| always the middle | 0.0820          |" in table
    write_page(outcomes, Task(), "make this", tmp_path / "out")
    page = json.loads((tmp_path / "out" / "coordinates.json").read_text())
    assert page["command"] == "make this" and page["networks"]["nope"][1]["errors"]["plain"]["8x16"] == 0.03
    curve_figure(outcomes, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.width > 500


def test_every_network_is_a_valid_one_of_its_own():
    for arm in ARMS.values():
        from_mapping(ModelConfig, arm.model)
        assert arm.network((8, 8), 64).position.for_sampling(arm.rope_methods[-1], (0.0, 1.0))
    assert len({arm.label for arm in ARMS.values()}) == len(ARMS)
    with pytest.raises(ConfigError, match="arms: 'rop' is unknown: did you mean rope"):
        find_arm("rop")
