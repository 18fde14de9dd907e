"""Results of a study: tables with mean and spread, the same from JSON, sheets, and the pages' tables from theirs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from script_runs import run

from configs import study_digits
from experiments.study.charts import metric_chart
from experiments.study.images import Samples
from experiments.study.reference import Figures
from experiments.study.results import Cell, Results, read_results, summarise, write_results
from experiments.study.sheets import method_sheet, size_sheet
from experiments.study.tables import all_tables, method_table, metric_table
from ledit_jax.errors import ConfigError, DataError

DOCS = Path(__file__).parents[2] / "docs"
# Of the study: the main one, and those beside the results.
PAGES = "\n".join(page.read_text() for page in (DOCS / "extrapolation.md", *(DOCS / "extrapolation").glob("*.md")))
SIZES = ((16, 16), (16, 32))


def figures(accuracy: float, frechet: float) -> Figures:
    return Figures(20, accuracy, frechet, 0.1, 0.05, 0.5, 0.25, 0.5, None)


def make_results(methods: dict[str, str], cells: list[Cell]) -> Results:
    config = study_digits.study()
    real = dict.fromkeys(SIZES, figures(1.0, 0.5))
    config = type(config)(**(vars(config) | {"sizes": ("16x16", "16x32"), "seeds": (0, 1)}))
    return summarise(config, methods, cells, real, weights="9 training steps", command="make this")


@pytest.fixture
def results():
    """A method with both seeds, and one that lost a seed at one size and both at the other."""
    cells = [Cell("dit", seed, size, figures(share, 3.0)) for seed, share in ((0, 0.25), (1, 0.75)) for size in SIZES]
    cells += [Cell("ledit", 0, SIZES[0], figures(0.5, 2.0)), Cell("ledit", 1, SIZES[0], None, "Error: no luck")]
    cells += [Cell("ledit", seed, SIZES[1], None, "Error: no luck") for seed in (0, 1)]
    return make_results({"dit": "DiT", "ledit": "LEDiT"}, cells)


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_tables_have_mean_and_spread_over_seeds(results):
    assert rows(metric_table(results, "accuracy")) == [
        ["method", "16x16 (1x)", "16x32 (2:1)"],
        ["-" * len(cell) for cell in ("real held-out images", "50.0% (1 failed)", "50.0% ± 35.4%")],
        ["DiT", "50.0% ± 35.4%", "50.0% ± 35.4%"],
        ["LEDiT", "50.0% (1 failed)", "failed"],
        ["real held-out images", "100.0%", "100.0%"],
    ]
    text = all_tables(results, results.metrics)
    assert results.metrics == ["accuracy", "frechet", "patches", "layout", "precision", "recall", "duplication"]
    assert "100 images of each of 2 seed(s), 20 real ones; 9 training steps." in text
    assert text.count("- ledit, seed 1: Error: no luck") == 1


def test_one_method_has_one_table(results):
    table = rows(all_tables(results.select(["dit"]), ["accuracy", "frechet"]).split("\n\n")[0])
    assert table[0] == ["DiT (real held-out images)", "16x16 (1x)", "16x32 (2:1)"]
    assert table[2:] == [
        ["accuracy", *["50.0% ± 35.4% (100.0%)"] * 2],
        ["frechet", *["3.00 ± 0.00 (0.50)"] * 2],
    ]
    with pytest.raises(ConfigError, match="methods: led is not among the results: did you mean ledit"):
        results.select(["led"])


def test_json_has_all_that_tables_show(results, tmp_path):
    write_results(results, tmp_path / "r.json", {"more": 1})
    assert read_results(tmp_path / "r.json") == results
    (tmp_path / "other.json").write_text('{"summary": []}')
    with pytest.raises(DataError, match=r"other\.json cannot be read as the results of a study"):
        read_results(tmp_path / "other.json")
    with pytest.raises(DataError, match=r"none\.json does not exist"):
        read_results(tmp_path / "none.json")


def test_a_chart_has_a_line_for_each_method(results, tmp_path):
    metric_chart(results, "frechet", tmp_path / "new" / "chart.png")
    page = np.asarray(Image.open(tmp_path / "new" / "chart.png").convert("RGB")).reshape(-1, 3)
    for color in ((31, 119, 180), (255, 127, 14)):  # the first two of matplotlib
        assert (page == color).all(axis=1).sum() > 20


def test_sheets_show_each_class_in_its_column(results, tmp_path):
    labels = np.tile(np.arange(3), 2)
    colors = np.array([(200, 0, 0), (0, 200, 0), (0, 0, 200)], np.uint8)[labels]
    small = Samples(np.broadcast_to(colors[:, None, None], (6, 16, 16, 3)), labels)
    wide = Samples(np.broadcast_to(colors[:, None, None], (6, 16, 32, 3)), labels)
    size_sheet(results, SIZES[0], {"dit": small, "ledit": small}, tmp_path / "size.png")
    method_sheet(results, "dit", {SIZES[0]: small, SIZES[1]: wide}, tmp_path / "method.png")
    size, method = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("size", "method"))
    for color in colors[:3]:
        assert (size == color).all(axis=-1).sum() == 2 * 4**2 * 16 * 16  # a row for each of two methods, 64 pixels high
        assert (method == color).all(axis=-1).sum() == 2 * 3**2 * (16 * 16 + 16 * 32)  # two rows at each of two sizes
    red, green = (np.nonzero((size == color).all(axis=-1))[1].min() for color in colors[:2])
    assert red < green


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("digits", ("accuracy", "frechet", "objects")),
        ("digits-seeds", ("accuracy", "frechet")),
        ("readings", ("accuracy", "frechet")),
        ("glyphs", ("accuracy", "frechet", "objects")),
        ("photos", ("frechet", "patches", "recall")),
        ("photos-flow", ("frechet", "patches", "accuracy")),
        ("photos-flow-seeds", ("frechet",)),
        ("photos-flow-long-seeds", ("frechet", "accuracy")),
        ("photos-flow-guided-seeds", ("frechet",)),
        ("photos-flow-crops", ("frechet", "accuracy")),
        ("photos-flow-long", ("frechet", "accuracy", "layout", "recall")),
        ("photos-flow-long-unscaled", ("frechet", "layout")),
        ("photos-flow-long-shift", ("frechet",)),
        ("photos-flow-guided", ("frechet", "accuracy", "layout", "recall")),
    ],
)
def test_the_pages_tables_are_those_of_the_results_beside_them(name, metrics):
    results = read_results(DOCS / "extrapolation" / f"{name}.json")
    for metric in metrics:
        assert metric_table(results, metric) in PAGES


def test_the_pages_table_of_the_shipped_checkpoint_is_too():
    results = read_results(DOCS / "extrapolation" / "shipped.json")
    assert method_table(results, results.metrics) in PAGES


def test_the_command_chooses_rows_and_metrics(tmp_path):
    flags = [f"--results={DOCS / 'extrapolation' / 'digits.json'}", "--methods=ledit,dit"]
    result = run("experiments/study/tables.py", *flags, "--metrics=frechet", f"--charts={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert [row[0] for row in rows(result.stdout.split("\n\n")[1])][2:] == [
        "LEDiT",
        "DiT, sin/cos",
        "real held-out images",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["digits-frechet.png"]
    result = run("experiments/study/tables.py", *flags, "--metrics=colour")
    assert result.returncode == 2 and "--metrics: colour was not measured" in result.stderr


def test_the_probes_tables_are_those_of_the_results_beside_them():
    page = (DOCS / "positions.md").read_text()
    probe = json.loads((DOCS / "positions" / "position-probe.json").read_text())
    for name, errors in probe["errors"].items():
        assert "| ".join(["", name + " ", *(f"{error:.2f} " for error in errors)]) in page
    learned = json.loads((DOCS / "positions" / "mark-then-count.json").read_text())
    for name, errors in learned["all 16x16"]["errors"].items():
        both = [*errors[:4], *learned["inside 16x16"]["errors"][name][:4]]
        assert f"| {' | '.join(f'{error:.2f}' for error in both)} |" in page


def test_the_curves_of_photographs_are_on_the_page():
    points = json.loads((DOCS / "extrapolation" / "photos-flow-curves.json").read_text())["points"]
    labels = {"ledit-xavier-norm": "LEDiT", "dit": "sin/cos", "learnable": "table", "rope": "RoPE", "yarn": "YaRN"}
    labels |= {"riflex": "RIFLEx", "rpe2d": "RPE-2D", "nope-conv": "convolution"}
    cells, layouts = {}, {}
    for point in sorted(points, key=lambda point: point["step"]):
        figures, size = point["figures"], "x".join(map(str, point["size"]))
        row = cells.setdefault(f"{labels[point['method']]}, {size}", [])
        row.append(f"{figures['frechet']:.2f}, {100 * figures['accuracy']:.0f}%")
        layouts.setdefault(f"{labels[point['method']]}, {size}", []).append(f"{figures['layout']:.3f}")
    for name, row in cells.items():
        if name not in ("YaRN, 16x16", "RIFLEx, 16x16"):  # RoPE's there
            assert " | ".join([f"| {name}", *row]) in PAGES
        if "16x16" not in name:
            assert " | ".join([f"| {name}", *layouts[name]]) in PAGES
