"""The recipe of scenes, end to end at tiny size, and images of prompts at two sizes."""

import json

import numpy as np
import pytest

from configs import scenes
from ledit_jax import LEDiTPipeline
from ledit_jax.config import Config
from ledit_jax.errors import ConfigError
from ledit_jax.training.loop import train


def test_it_trains_and_draws_what_is_asked_for(tmp_path):
    config = scenes.experiment("lemmdit").replaced("model", depth=2, width=16).replaced("sample", num_steps=2)
    config = config.replaced("train", num_steps=3, batch_size=4, warmup_steps=0, decay_steps=0, log_every=1)
    train(config, tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and np.isfinite(losses).all()
    pipeline = LEDiTPipeline.from_checkpoint(tmp_path)
    prompts = ["a red disc above a blue square", "three green triangles"]
    for size in ((24, 24), (36, 48)):
        images = pipeline(prompts, *size)
        assert images.shape == (2, *size, 3) and (images[0] != images[1]).any()
    with pytest.raises(ConfigError, match="does not know 'circle'"):
        pipeline(["a red circle"])


def test_arms_differ_in_what_makes_the_method_alone():
    lemmdit, mmdit, rope = (Config.from_dict(scenes.get_config(arm).to_dict()) for arm in scenes.FAMILIES)
    assert (mmdit.model.position, mmdit.model.conv, rope.model.position) == ("sincos", "none", "rope")
    assert (lemmdit.model.position, lemmdit.model.conv, lemmdit.model.post_norm) == ("none", "dense", True)
    same = dict(position="sincos", block_order="sa", conv="none", post_norm=False)
    assert lemmdit.replaced("model", **same) == mmdit == rope.replaced("model", position="sincos")
    with pytest.raises(ConfigError, match="configs/scenes.py:ledit is unknown"):
        scenes.get_config("ledit")
