"""The study end to end at tiny size: what it writes, how it resumes, what fails alone, and what is refused first."""

import csv
import dataclasses
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from experiments.measure import measure_checkpoint
from experiments.study import arms as study_arms
from experiments.study import cells as study_cells
from experiments.study import images as study_images
from experiments.study import run as study_run
from experiments.study.config import StudyConfig
from experiments.study.methods import BASE
from experiments.study.reference import make_reference
from experiments.study.run import run_study
from ledit_jax.errors import ConfigError, OutputError
from ledit_jax.models import positions
from ledit_jax.weights import load_weights


@pytest.fixture(scope="module", autouse=True)
def few_real_images():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_images, "MAX_REAL", 200)
        study_images.real_images.cache_clear()
        yield
    study_images.real_images.cache_clear()


def tiny_study(**fields) -> StudyConfig:
    experiment = tiny_config(train=dict(checkpoint_every=4, dilation_probability=0.0))
    defaults = dict(
        methods=("dit", "ledit"), sizes=("8x8", "12x8"), steps=2, base_steps=1, per_class=2, base_learning_rate=0.1
    )
    return StudyConfig.from_dict(dataclasses.asdict(StudyConfig(experiment=experiment, **(defaults | fields))))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(study, workdir, cells) of a study in which RoPE's training fails, and LEDiT's second size."""
    workdir = tmp_path_factory.mktemp("study")
    study = tiny_study(methods=("ledit", "ntk"))
    real_train, real_draw = study_arms.train, study_cells.draw

    def train(config, workdir, init_from):
        if config.model.position == "rope":
            raise FloatingPointError("no luck\nwith these weights")
        return real_train(config, workdir, init_from=init_from)

    def draw(pipeline, size, caption, **settings):
        if (caption, size) == ("ledit", (12, 8)):
            raise MemoryError("too large")
        return real_draw(pipeline, size, caption=caption, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_arms, "train", train)
        patch.setattr(study_cells, "draw", draw)
        cells = run_study(study, workdir, "make this")
    return study, workdir, cells


def test_failures_are_reported_and_take_nothing_down(finished):
    _, workdir, cells = finished
    errors = {(c.method, c.size): c.error for c in cells}
    rope = "training rope: FloatingPointError: no luck with these weights"
    assert errors == {
        ("ledit", (8, 8)): "",
        ("ledit", (12, 8)): "MemoryError: too large",
        ("ntk", (8, 8)): rope,
        ("ntk", (12, 8)): rope,
    }
    assert cells[0].figures is not None and all(c.figures is None for c in cells[1:])
    table = (workdir / "table.md").read_text()
    assert "| RoPE + VisionNTK     | failed   | failed     |" in table and "- ntk, seed 0: " + rope in table


def test_results_say_the_same_in_every_form(finished):
    _, workdir, cells = finished
    with open(workdir / "table.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    results = json.loads((workdir / "results.json").read_text())
    assert len(rows) == len(results["cells"]) == len(cells)
    for cell, row, record in zip(cells, rows, results["cells"], strict=True):
        assert (row["method"], int(row["seed"]), row["error"]) == (cell.method, cell.seed, cell.error)
        assert (int(row["height"]), int(row["width"])) == cell.size == tuple(record["size"])
        if cell.figures:
            assert float(row["frechet"]) == cell.figures.frechet == record["figures"]["frechet"]
            assert float(row["recall"]) == cell.figures.recall == record["figures"]["recall"]
            assert 0 <= cell.figures.accuracy <= 1 and cell.figures.num_samples == 20
    assert results["study"]["steps"] == 2 and [tuple(r["size"]) for r in results["real"]] == [(8, 8), (12, 8)]
    assert results["command"] == "make this"
    charts, sheets = ("accuracy", "patches", "objects", "loss"), ("overview", "images-8x8", "images-ledit")
    for name in (f"{stem}.png" for stem in charts + sheets):
        with Image.open(workdir / name) as image:
            assert image.width > 100
    assert not (workdir / "images-12x8.png").exists() and not (workdir / "images-ntk.png").exists()  # nothing drawn


def test_a_checkpoint_by_itself_is_measured_as_in_the_study(finished, tmp_path, capsys):
    study, workdir, cells = finished
    weights = workdir / "weights" / "ledit" / "seed-0"
    other = dataclasses.replace(study, experiment=study.experiment.replaced("data", image_channels=3))
    with pytest.raises(ConfigError, match="seed-0 has image_channels=1, and the study 3: its judge reads"):
        measure_checkpoint(other, None, weights, "ours", tmp_path / "out", "make that")
    measure_checkpoint(study, make_reference(study, None), weights, "ours", tmp_path / "out", "make that")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["cells"][0]["figures"] == dataclasses.asdict(cells[0].figures)
    assert results["cells"][1]["figures"] is not None and results["methods"] == {"ours": "ours"}
    assert f"{weights} at step 2" in results["note"] and results["note"] in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "sheet.png") as image:
        assert image.width > 100


def test_resuming_runs_what_is_missing_alone(finished, monkeypatch):
    study, workdir, cells = finished
    trained, drawn = [], []
    real_train, real_draw = study_arms.train, study_cells.draw

    def train(config, path, init_from):
        trained.append(path.relative_to(workdir / "weights").as_posix())
        return real_train(config, path, init_from=init_from)

    def draw(pipeline, size, caption, seed, **settings):
        drawn.append((caption, seed, size))
        return real_draw(pipeline, size, caption=caption, seed=seed, **settings)

    monkeypatch.setattr(study_arms, "train", train)
    monkeypatch.setattr(study_cells, "draw", draw)
    monkeypatch.setattr(study_run, "draw_study", lambda *_: None)  # charts and sheets take seconds, and are above
    again = run_study(study, workdir)
    assert trained == ["rope/seed-0"]
    assert drawn == [("ledit", 0, (12, 8)), ("ntk", 0, (8, 8)), ("ntk", 0, (12, 8))]
    assert all(c.figures is not None for c in again)
    assert again[0] == cells[0]

    # What was made with other settings is refused, before anything is trained or drawn.
    drawn.clear()
    with pytest.raises(OutputError, match="train.num_steps=2 there, 3 here"):
        run_study(dataclasses.replace(study, steps=3), workdir)
    with pytest.raises(OutputError, match="ledit/seed-0 was begun with other settings .per_class=2 there, 1 here"):
        run_study(dataclasses.replace(study, per_class=1), workdir)
    assert run_study(study, workdir) == again and not drawn


def test_arms_start_from_the_base(finished):
    _, workdir, _ = finished
    (base, config, base_step), (ledit, _, step) = (
        load_weights(workdir / "weights" / arm / "seed-0", weights)
        for arm, weights in ((BASE, "ema"), ("ledit", "params"))
    )
    assert (base_step, step, config.model.position) == (1, 2, "sincos")
    # The output's bias starts at 0, the base's step at 0.1 moves its average by 0.01, and two at 1e-3 by 0.002 at most.
    base, ledit = (params["final_layer"]["linear"]["bias"] for params in (base, ledit))
    assert np.abs(base).max() > 9e-3 and np.abs(ledit - base).max() < 2.1e-3


def test_flows_by_network_calls_have_a_base_and_pages_of_their_own(tmp_path, monkeypatch):
    names = ("ledit-flow@euler-1", "ledit-flow@euler-2", "ledit-flow-shift@ab2-2")
    study = tiny_study(methods=names, sizes=("12x8",))
    cells = run_study(study, tmp_path)
    assert {(c.method, c.error) for c in cells} == {(name, "") for name in names}
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == ["base-flow", "ledit-flow"]
    for arm in ("base-flow", "ledit-flow"):
        config = load_weights(tmp_path / "weights" / arm / "seed-0")[1]
        assert (config.diffusion.objective, config.flow.time_scale) == ("flow", 1000.0)
    images = [np.load(tmp_path / "samples" / name / "seed-0" / "12x8.npz")["images"] for name in names]
    assert all((a != b).any() for a, b in itertools.combinations(images, 2))
    table = (tmp_path / "table.md").read_text()
    assert (
        "| 12x8 (2:3)" in table and "| LEDiT by flow, euler" in table and "| LEDiT by flow + time shift, ab2" in table
    )
    pages = {path.name for path in tmp_path.glob("*.png")}
    assert pages == {"loss.png", "calls.png", "calls-12x8.png"}

    for module, name in ((study_arms, "train"), (study_cells, "draw"), (study_run, "draw_study")):
        monkeypatch.setattr(module, name, pytest.fail if name != "draw_study" else lambda *_: None)
    assert run_study(study, tmp_path) == cells


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(methods=("ledit@dim-8",)), "method ledit@dim-8: sample.sampler='dim' is unknown"),
        (dict(methods=("ledit-flow@ddim-8",)), "method ledit-flow@ddim-8: sample.sampler=ddim does not fit a flow"),
        (dict(methods=("ledit@ddim",)), "must end in a sampler and a number of calls, as in ledit@ddim-8"),
        (dict(methods=("ledit", "rop")), "methods: 'rop' is unknown: did you mean rope"),
        (dict(methods=("ledit", "ledit")), "must be one or more different"),
        (dict(methods=()), "methods=()"),
        (dict(sizes=("8x8", "9x8")), "size 9x8: height=9 is not a positive multiple of 2"),
        (dict(sizes=("8",)), "'8' is no size"),
        (dict(sizes=("8x8", "1000000x8")), "size 1000000x8: attention's logits for batch_size=1 with height=1000000"),
        (dict(seeds=(-1,)), "must not be negative"),
        (dict(per_class=0), "per_class=0"),
        (dict(methods=("fit",)), "method fit cannot start from a DiT"),
        (dict(methods=("lookhere",)), "method lookhere: model.num_heads=2 is too few"),
        (dict(images="x"), "images=x is for image_folder"),
    ],
)
def test_bad_settings_are_named_before_any_training(fields, message):
    with pytest.raises(ConfigError, match=message):
        tiny_study(**fields)


def test_a_method_that_cannot_run_at_a_size_is_named(monkeypatch):
    def resize_table(table, grid):
        raise ValueError("no table for so many rows")

    monkeypatch.setattr(positions, "resize_table", resize_table)
    with pytest.raises(ConfigError, match="method learnable cannot run at 8x8: no table"):
        tiny_study(methods=("dit", "learnable"))


def test_methods_on_one_line_are_taken_apart():
    assert tiny_study(methods=("dit,nope-conv", "ledit,")).methods == ("dit", "nope-conv", "ledit")
