"""The sweep: tables in the paper's layout with the paper's rows, and nothing done twice."""

import json

import jax
import numpy as np
import torch
from oracles import fidelity
from script_runs import run
from tiny import network_of, tiny_config

from experiments.paper import FID
from experiments.sweep import fid_table, make_text_page
from ledit_jax.convert.inception import convert_inception
from ledit_jax.evaluation.suite import Metrics
from ledit_jax.models.functional import init_params
from ledit_jax.weights import export_weights


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_ours_first_then_the_papers_rows_of_these_sizes():
    results = {
        ((384, 384), 1.5): Metrics(9.5, 1.0, 100.0, 0.5, 0.5),
        ((512, 512), 1.5): Metrics(33.0, 1.0, 100.0, 0.5, 0.5),
        ((512, 512), 4.0): Metrics(44.0, 1.0, 100.0, 0.5, 0.5),
    }
    table = cells(fid_table("xl2", results, 256, 10_000))
    assert table[0] == ["FID, samples", "384x384", "512x512"]
    assert table[2:4] == [["**xl2, cfg 1.5**, 10,000", "9.50", "33.00"], ["**xl2, cfg 4**, 10,000", "-", "44.00"]]
    assert ["LEDiT, fine-tuned (paper), 50,000", "9.34", "33.25"] in table
    assert ["LEDiT, fine-tuned (paper), 10,000", "-", "35.86"] in table
    assert ["LookHere-180 (paper), 10,000", "-", "66.93"] in table
    first = cells(fid_table("xl2", results, 256, 50_000))
    for rows, count in ((table, "10,000"), (first, "50,000")):  # like beside like
        assert rows[4][0].endswith(f"(paper), {count}")
    assert sorted(table[4:]) == sorted(first[4:])
    assert not any("DiT, RoPE" in row[0] for row in table), "a row with none of these sizes"
    assert len(cells(fid_table("digits", results, 16, 100))) == 4


def test_text_to_image_stands_beside_the_papers_rows_of_its_sizes():
    results = {((512, 512), 2.0): Metrics(30.0, 40.0, 24.0, 0.5, 0.25), ((384, 384), 2.0): Metrics(fid=10.0)}
    table = cells(make_text_page("lemmdit", results, 256, 40_504).split("\n\n")[1])
    assert [title[:-2] for title in table[0][1:]] == ["FID", "sFID", "IS", "precision", "recall", "CLIP"]
    assert [row[0] for row in table[2:4]] == ["**lemmdit, 512x512-cfg2**", "**lemmdit, 384x384-cfg2**"]
    assert table[2][1:] == ["30.00", "40.00", "24.00", "0.5000", "0.2500", "-"]
    assert len(table) == 4 + 5 and table[-1][0] == "LEMMDiT (paper), 512x512"
    assert [float(cell) for cell in table[-1][1:]] == [29.89, 39.98, 24.11, 0.44, 0.31, 27.82]
    assert len(cells(make_text_page("words", results, 64, 100).split("\n\n")[1])) == 4


def test_figures_of_ten_thousand_samples_are_among_those_of_as_many():
    """Tables 10 to 12 of the paper, and everything that was trained at 512."""
    assert set(FID[512]) == {10_000}
    large = (1024, 1024)
    assert not any(large in figures for figures in FID[256][50_000].values())
    assert {f[large] for f in FID[256][10_000].values() if large in f} == {212.97, 228.41}
    assert FID[256][10_000]["learnable positions, interpolated"] == {(512, 512): 208.45}


def test_a_sweep_of_a_tiny_model_and_the_same_command_again(tmp_path):
    config = tiny_config()
    export_weights(tmp_path / "c", init_params(network_of(config), jax.random.key(0)), config, step=1)
    torch.save(fidelity.random_inception(), tmp_path / "x.pth")
    convert_inception(tmp_path / "x.pth", tmp_path / "x.npz")  # three runs need no torch then
    np.savez(tmp_path / "ref.npz", np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8))
    flags = [f"--checkpoint={tmp_path / 'c'}", f"--inception={tmp_path / 'x.npz'}", f"--workdir={tmp_path / 'w'}"]
    flags += [f"--reference={tmp_path / 'ref.npz'}", "--num_samples=4", "--num_steps=2", "--batch_size=4"]

    def sweep(*more):
        result = run("experiments/sweep.py", *flags, *more)
        assert result.returncode == 0, result.stderr
        return result.stdout

    first = sweep("--sizes=8x8,8x12")
    names = {"8x8-cfg1.5", "8x12-cfg1.5"}
    figures = json.loads((tmp_path / "w" / "sweep.json").read_text())
    assert set(figures) == names and all(f["fid"] > 0 for f in figures.values())
    assert "8x12" in first and (tmp_path / "w" / "sweep.md").read_text() in first
    assert json.loads((tmp_path / "w" / "8x12-cfg1.5.json").read_text())["recipe"]["width"] == 12
    made = [path for name in (*names, "references/*/0") for path in (tmp_path / "w").glob(f"{name}*")]
    written = {path: path.stat().st_mtime_ns for path in made}
    assert len(written) >= 7
    assert sweep("--sizes=8x8,8x12") == first
    assert {path: path.stat().st_mtime_ns for path in written} == written, "something was drawn or measured again"

    refusals = {
        "--seed=1": "seed=0 there, 1 here",
        "--num_samples=1000000000000": "num_samples=1000000000000 with height=8 and width=8 are",
    }
    for flag, says in refusals.items():
        result = run("experiments/sweep.py", *flags, "--sizes=8x8", flag)
        assert result.returncode == 2 and says in result.stderr
