"""The README's Python runs as it stands there, and its table is the one in docs."""

import re
from pathlib import Path

import numpy as np

from experiments.study.results import read_results
from ledit_jax import LEDiTPipeline

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_pipeline(monkeypatch):
    monkeypatch.chdir(ROOT)
    block = next(block for block in BLOCKS if "from_checkpoint" in block)
    names = {}
    exec(block.replace("seed=0)", "seed=0, num_steps=2)"), names)
    assert names["images"].shape == (2, 32, 16, 1)
    x = np.zeros((2, 16, 16, 1), np.float32)
    assert names["model"](x, np.array([5, 900]), np.array([3, 10])).shape == x.shape


def test_the_training_loop(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    block = next(block for block in BLOCKS if "value_and_grad" in block)
    names = {}
    try:
        exec(block.replace("1000", "8"), names)
    finally:
        names["loader"].close()
    assert np.isfinite(names["loss"]) and names["loss"] < 1.2
    assert LEDiTPipeline.from_checkpoint("runs/mine")([3], num_steps=2).shape == (1, 16, 16, 1)


FORMS = {"frechet": "{:.2f}", "layout": "{:.3f}", "accuracy": "{:.0%}"}


def cells(name):
    """method, size -> Fréchet distance, that of layouts if measured, and share read right, as docs has them."""
    results = read_results(ROOT / "docs" / "extrapolation" / f"{name}.json")
    return {
        cell: [form.format(found[metric].mean) for metric, form in FORMS.items() if metric in found]
        for cell, found in results.entries.items()
    }


def test_the_table_is_that_of_the_docs():
    found = cells("photos-flow-guided")
    names = {
        "LEDiT": "ledit-xavier-norm",
        "DiT, sin/cos": "dit",
        "Learned table, stretched": "learnable",
        "RoPE": "rope",
        "RoPE + YaRN": "yarn",
        "RPE-2D": "rpe2d",
        "LEDiT's convolution alone": "nope-conv",
    }
    for label, method in names.items():
        row = re.search(rf"^\| {re.escape(label)} \|(.*)\|$", README, flags=re.MULTILINE)[1]
        sizes = [(16, 16), (24, 24), (32, 32), (16, 32)]
        assert [cell.strip() for cell in row.split("|")] == [", ".join(found[method, size]) for size in sizes]


def test_the_limits_below_it_are_too():
    seeds, size = cells("photos-flow-long-seeds"), (32, 32)
    assert f"({seeds['rope', size][0]} and {seeds['ledit-xavier-norm', size][0]} on average)" in README
    one = cells("photos-flow-long")
    (rival, rival_layout, _), (own, own_layout, _) = one["rpe2d", size], one["ledit-xavier-norm", size]
    assert f"(at 2x {rival} and {own}, by layout {rival_layout} and {own_layout})" in README
    assert "({}, by layout {})".format(*one["nope-conv", size]) in README
