"""Pages of methods drawn with several numbers of network calls: the table, the chart, and where images stand."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from configs import study_flow
from experiments.study.calls import calls_chart, calls_sheet, calls_table
from experiments.study.config import StudyConfig
from experiments.study.images import Samples
from experiments.study.methods import find_method
from experiments.study.reference import Figures
from experiments.study.results import Cell, read_results, summarise
from experiments.study.tables import all_tables

DOCS = Path(__file__).parents[2] / "docs"
SIZE = (16, 16)
DRAWN = {"ledit@ddim-4": 0.25, "ledit@ddim-16": 0.5, "ledit-flow@ab2-4": 0.75}


def figures(accuracy):
    return Figures(20, accuracy, 8 * accuracy, 0.1, 0.05, 0.5, 0.25, 0.5, None)


def make_results():
    config = dataclasses.replace(study_flow.study(), sizes=("16x16",))
    cells = [Cell(name, 0, SIZE, figures(share)) for name, share in DRAWN.items()]
    cells.append(Cell("ledit-flow@ab2-16", 0, SIZE, None, "Error: no luck"))
    labels = {cell.method: find_method(cell.method).label for cell in cells}
    return summarise(config, labels, cells, {SIZE: figures(1.0)}, weights="9 training steps", command="make this")


def test_the_table_has_calls_across():
    table = calls_table(make_results(), SIZE)
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()][2:] == [
        ["LEDiT, ddim", "25.0%, 2.00", "50.0%, 4.00"],
        ["LEDiT by flow, ab2", "75.0%, 6.00", "failed"],
        ["real held-out images", "100.0%, 8.00", ""],
    ]
    assert table.splitlines()[0].split() == ["|", "16x16", "(1x)", "|", "4", "|", "16", "|"]
    assert table in all_tables(make_results(), ["accuracy"])


def test_a_sheet_has_calls_across_and_leaves_white_what_is_missing(tmp_path):
    results = make_results()
    images = {
        (name, SIZE): Samples(np.full((10, *SIZE, 1), shade, np.uint8), np.arange(10))
        for name, shade in zip(DRAWN, (50, 100, 150), strict=True)
    }
    calls_sheet(results, SIZE, images, tmp_path / "sheet.png")
    calls_chart(results, tmp_path / "chart.png")
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "chart.png") as chart:
        page = np.asarray(sheet.convert("L"))
        assert chart.width > 400
    # A column of a panel is four images high; text has few pixels of a shade.
    columns = [np.nonzero((page == shade).sum(axis=0) >= 4 * 48)[0] for shade in (50, 100, 150)]
    assert [len(column) for column in columns] == [48, 48, 48]
    assert columns[0].max() < columns[1].min() and columns[1].max() < columns[2].min()


def test_the_study_asks_for_the_issues_calls():
    config = StudyConfig.from_dict(dataclasses.asdict(dataclasses.replace(study_flow.study(), sizes=("16x16",))))
    assert config.bases == ("base", "base-flow")
    assert config.arms == ("ledit", "ledit-flow", "ledit-flow-dit", "ledit-meanflow")
    for method in ("ledit@dpmpp", "ledit-flow@ab2", "ledit-flow-shift@ab2"):
        assert {f"{method}-{calls}" for calls in (4, 8, 16, 25, 50)} <= set(config.methods)


def test_the_pages_tables_are_those_of_the_results_beside_it():
    page, results = (DOCS / "flow.md").read_text(), read_results(DOCS / "flow" / "digits.json")
    assert list(results.methods) == list(study_flow.METHODS) and results.note in page
    for size in results.sizes:
        assert calls_table(results, size) in page
