"""Figures over the width and over the grid, from the results of studies that differ in it alone."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image
from tiny import tiny_config

from experiments.doublings import at_each_doubling
from experiments.study.config import StudyConfig
from experiments.study.reference import Figures
from experiments.study.results import Cell, summarise
from experiments.study.scaling import find_scale, read_scaled, scaling_table, write_scaling
from experiments.study.tables import write_tables
from ledit_jax.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs" / "extrapolation"
METHODS = {"ledit": "LEDiT", "rope": "RoPE"}


def write_study(folder, distances, **model):
    """The results of a study of both methods, with these Fréchet distances of theirs, as one leaves them."""
    experiment = tiny_config("LEDiT")
    # A study unpacks photographs into its own workdir.
    experiment = experiment.replaced("model", **model).replaced("data", path=str(folder / "images"))
    config = StudyConfig(experiment, tuple(METHODS), sizes=("8x8", "8x16"), steps=100)
    cells = [
        Cell(name, 0, size, Figures(20, 0.5, distance, 0.1, 0.05, 0.5, 0.25, 0.5, None))
        for name, distance in zip(METHODS, distances, strict=True)
        for size in config.image_sizes
    ]
    real = dict.fromkeys(config.image_sizes, Figures(20, 1.0, 0.1, 0.1, 0.05, 0.5, 0.25, 0.5, None))
    results = summarise(config, METHODS, cells, real, weights="100 steps", command="make this")
    write_tables(results, cells, dataclasses.asdict(config), folder)
    return read_scaled(folder / "results.json")


@pytest.mark.parametrize(
    ("scale", "small", "large", "values"),
    [
        ("width", {"width": 16, "num_heads": 2}, {"width": 32, "num_heads": 4}, ("16", "32")),
        ("side", {"patch_size": 4}, {"patch_size": 2}, ("2", "4")),
    ],
)
def test_table_and_chart_over_the_scale(tmp_path, capsys, scale, small, large, values):
    studies = [
        write_study(tmp_path / "large", (1.0, 6.0), **large),
        write_study(tmp_path / "small", (4.0, 2.0), **small),
    ]
    capsys.readouterr()
    write_scaling(studies, tmp_path)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in (tmp_path / "scaling.md").read_text().splitlines()
    ]
    assert [row[:2] for row in rows[2:]] == [
        [label, value] for label in METHODS.values() for value in (*values, "each doubling")
    ]
    assert [row[3:] for row in rows[2:5]] == [["50.0%, 4.00"] * 2, ["50.0%, 1.00"] * 2, ["distance x 0.25"] * 2]
    assert rows[7][3] == "distance x 3.00"
    assert float(rows[3][2]) > float(rows[2][2]) > 0
    with Image.open(tmp_path / "scaling.png") as image:
        assert image.width > 300


def test_studies_that_differ_in_more_are_refused(tmp_path):
    first = write_study(tmp_path / "a", (1.0, 1.0), width=16)
    other = write_study(tmp_path / "b", (1.0, 1.0), width=32, depth=4)
    with pytest.raises(ConfigError, match="the studies differ in model.depth too, and not in width alone"):
        find_scale([first, other])
    for studies in ([first], [first, first]):
        with pytest.raises(ConfigError, match="give studies of two or more widths"):
            find_scale(studies)


def test_what_a_doubling_does():
    assert at_each_doubling([1, 2, 8], [3.0, 1.5, 0.375]) == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "scale"), [("photos-flow-patch4", "side"), ("photos-flow-width48", "width")])
def test_the_pages_tables_are_those_of_the_results_beside_it(name, scale):
    studies = [read_scaled(DOCS / f"{file}.json") for file in (name, "photos-flow")]
    assert find_scale(studies) == scale
    assert scaling_table(studies, scale) in (DOCS / "photos.md").read_text()
