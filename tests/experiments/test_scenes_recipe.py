"""The recipe of scenes and its study, end to end at tiny size: trained, drawn by captions, and judged."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from configs import scenes, study_scenes
from experiments.study.config import StudyConfig, arm_config
from experiments.study.images import held_out_captions, real_scenes
from experiments.study.reference import SceneReference
from experiments.study.run import run_study
from ledit_jax import LEDiTPipeline
from ledit_jax.config import Config
from ledit_jax.errors import ConfigError


def tiny_study(**fields) -> StudyConfig:
    study = study_scenes.study()
    experiment = study.experiment.replaced("model", depth=2, width=16).replaced("sample", num_steps=2)
    # So fast that text, whose part in it starts at zero, shows after three steps.
    experiment = experiment.replaced("train", learning_rate=0.05)
    experiment = experiment.replaced("train", batch_size=4, warmup_steps=0, decay_steps=0, log_every=1, ema_decay=0.0)
    defaults = dict(experiment=experiment, methods=("ledit-post-norm",), sizes=("24x24", "36x24"), steps=3, per_class=4)
    return StudyConfig.from_dict(dataclasses.asdict(dataclasses.replace(study, **(defaults | fields))))


def test_it_trains_draws_what_captions_ask_for_and_is_judged(tmp_path):
    (first, second) = run_study(tiny_study(), tmp_path)
    weights = tmp_path / "weights" / "ledit-post-norm" / "seed-0"
    losses = [json.loads(line)["loss"] for line in (weights / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and np.isfinite(losses).all()
    assert (first.error, second.error, first.figures.num_samples) == ("", "", 4)
    assert first.figures.accuracy <= first.figures.colour <= 1 and first.figures.frechet is None
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["methods"] == {"ledit-post-norm": "LEMMDiT, post-norm"}
    assert [real["accuracy"] for real in results["real"]] == [1.0, 1.0] and "frechet" not in results["real"][0]
    assert "| shape " in (tmp_path / "table.md").read_text()
    for name in ("overview.png", "images-24x24.png", "place.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > 100

    pipeline = LEDiTPipeline.from_checkpoint(weights)
    asked = held_out_captions(4)
    drawn = pipeline(asked, 36, 24, options=pipeline.options(num_steps=2))
    with np.load(tmp_path / "samples" / "ledit-post-norm" / "seed-0" / "36x24.npz") as stored:
        # The study's steps run operation by operation: images differ by rounding.
        np.testing.assert_allclose(stored["images"].astype(int), drawn, atol=2)
    assert (drawn != pipeline(asked[::-1], 36, 24)).any()
    with pytest.raises(ConfigError, match="does not know 'circle'"):
        pipeline(["a red circle"])


def test_the_reference_tells_scenes_from_other_captions():
    samples = real_scenes(36, 24, 30)
    reference = SceneReference()
    assert reference.measure(samples) == reference.measure_real((36, 24), 30)
    assert reference.measure(samples).accuracy == 1
    moved = dataclasses.replace(samples, labels=np.roll(samples.labels, 1))
    assert reference.measure(moved).accuracy < 0.1


def test_arms_differ_in_what_makes_the_method_alone():
    lemmdit, mmdit, rope = (Config.from_dict(scenes.get_config(arm).to_dict()) for arm in scenes.FAMILIES)
    assert (mmdit.model.position, mmdit.model.conv, rope.model.position) == ("sincos", "none", "rope")
    assert (lemmdit.model.position, lemmdit.model.conv, lemmdit.model.post_norm) == ("none", "dense", True)
    same = dict(position="sincos", block_order="sa", conv="none", post_norm=False)
    assert lemmdit.replaced("model", **same) == mmdit == rope.replaced("model", position="sincos")
    arms = {"ledit-post-norm": lemmdit, "dit": mmdit, "rope": rope}
    assert all(arm_config(study_scenes.study(), arm, 0) == config for arm, config in arms.items())
    with pytest.raises(ConfigError, match="configs/scenes.py:ledit is unknown"):
        scenes.get_config("ledit")


def test_captions_are_asked_for_of_scenes_alone():
    classes = study_scenes.study().experiment.replaced("data", source="shapes")
    with pytest.raises(ConfigError, match="source=shapes with experiment.text.encoder=words"):
        tiny_study(experiment=classes, methods=("dit",), sizes=("24x24",))
