"""Figures over the training steps: each kept checkpoint drawn once, measured, and shown with its cost."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import network_of, tiny_config

from experiments.study import cells as study_cells
from experiments.study import images as study_images
from experiments.study.config import Study, StudyConfig, arm_config
from experiments.study.curves import SHOWN, measure_steps, write_curves
from experiments.study.reference import make_reference
from ledit_jax.errors import CheckpointError
from ledit_jax.models import init_params
from ledit_jax.weights import export_weights


def test_figures_of_each_kept_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study_images, "MAX_REAL", 100)
    study_images.real_images.cache_clear()
    config = StudyConfig(tiny_config("NoPE"), methods=("nope",), sizes=("8x8",), steps=2, per_class=1)
    study, reference = Study(config, tmp_path), make_reference(config, None)
    arm = arm_config(config, "nope", 0)
    weights = init_params(network_of(arm), jax.random.key(0))
    kept = study.weights("nope", 0) / "checkpoints"
    kept.mkdir(parents=True)
    for step in (1, 2):  # as a run keeps them
        export_weights(tmp_path / f"made-{step}", weights, arm, step)
        (tmp_path / f"made-{step}" / str(step)).rename(kept / str(step))
        weights = jax.tree.map(lambda w: w + 0.1, weights)

    points = measure_steps(study, reference, ["all"])
    assert [(p.method, p.step, p.size) for p in points] == [("nope", 1, (8, 8)), ("nope", 2, (8, 8))]
    assert points[1].petaflops == 2 * points[0].petaflops > 0
    drawn = [np.load(study.samples("nope", 0, p.step) / "8x8.npz")["images"] for p in points]
    assert (drawn[0] != drawn[1]).any()
    monkeypatch.setattr(study_cells, "draw", pytest.fail)  # what was drawn is not drawn again
    assert measure_steps(study, reference, ["2"]) == points[1:]
    with pytest.raises(CheckpointError, match="has no step 3; there are: 1, 2"):
        measure_steps(study, reference, ["3"])

    other_seed = [dataclasses.replace(p, seed=1, figures=dataclasses.replace(p.figures, frechet=0.0)) for p in points]
    write_curves(points + other_seed, (8, 8), "make this", tmp_path)
    kept = json.loads((tmp_path / "curves.json").read_text())
    assert kept["command"] == "make this" and len(kept["points"]) == 4
    assert kept["points"][0]["figures"] == dataclasses.asdict(points[0].figures)
    table = capsys.readouterr().out
    assert f", {points[0].figures.frechet / 2:.2f}, " in table and "| NoPE   | 1    |" in table
    for metric in SHOWN:
        with Image.open(tmp_path / f"curves-{metric}.png") as image:
            assert image.width > 300
    study_images.real_images.cache_clear()
