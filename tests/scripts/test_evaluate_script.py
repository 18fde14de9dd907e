"""evaluate.py as a user meets it: the table and the JSON, saved references, and bad input in one line."""

import json

import numpy as np
import pytest
import torch
from oracles import fidelity
from script_runs import run
from scripts.test_bad_input import assert_one_line


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(fidelity.random_inception(), path)
    return path


def write(path, count, size=(8, 8)):
    np.savez(path, np.random.default_rng(count).integers(0, 256, (count, *size, 3), dtype=np.uint8))
    return path


def test_figures_with_recipe_and_a_saved_reference(tmp_path, inception):
    samples, converted = write(tmp_path / "x.npz", 4), tmp_path / "inception.npz"
    (tmp_path / "x.recipe.json").write_text(json.dumps({"seed": 7}))
    result = run("convert_torch_weights.py", f"--input={inception}", f"--output={converted}")
    assert result.returncode == 0, result.stderr
    flags = [
        f"--inception={converted}",
        "--batch_size=4",
        f"--json={tmp_path / 'x.json'}",
        f"--features={tmp_path / 'f'}",
    ]
    reference = write(tmp_path / "y.npz", 4, (8, 12))
    saved = tmp_path / "ref.npz"
    first = run("evaluate.py", f"--samples={samples}", f"--reference={reference}", f"--save_reference={saved}", *flags)
    assert first.returncode == 0, first.stderr
    assert "FID" in first.stdout and "the samples are 4 images" in first.stderr and "8x12" in first.stderr
    figures = json.loads((tmp_path / "x.json").read_text())
    assert figures["recipe"] == {"seed": 7} and figures["samples"]["num_samples"] == 4
    assert figures["fid"] > 0 and 0 <= figures["precision"] <= 1 and figures["inception"]["digest"]
    second = run("evaluate.py", f"--samples={samples}", f"--reference={saved}", *flags)
    assert second.returncode == 0, second.stderr
    again = json.loads((tmp_path / "x.json").read_text())
    assert all(again[name] == figures[name] for name in ("fid", "sfid", "inception_score", "precision", "recall"))


def test_bad_input(tmp_path, inception):
    samples = write(tmp_path / "x.npz", 6)
    grey = tmp_path / "grey.npz"
    np.savez(grey, np.zeros((6, 8, 8, 1), np.uint8))
    reference, weights = f"--reference={samples}", f"--inception={inception}"
    assert_one_line(run("evaluate.py", reference, f"--samples={samples}"), "--inception is not given")
    assert_one_line(run("evaluate.py", f"--reference={grey}", f"--samples={samples}", weights), "grey images")
    assert_one_line(run("evaluate.py", reference, f"--samples={samples}", f"--inception={samples}"), "missing", "arr_0")
