"""The digits experiment: its arms are valid and alike, and what the repository ships is one of them."""

from pathlib import Path

import pytest
from tiny import tiny_config, with_train

from configs import digits, imagenet256, imagenet256_finetune, imagenet512, imagenet512_finetune
from experiments.demo import last_step
from experiments.digits import export
from ledit_jax.config import Config
from ledit_jax.training.loop import train
from ledit_jax.weights import load_weights

ASSET = Path(__file__).parents[2] / "assets" / "digits"


def arm(name: str) -> Config:
    return Config.from_dict(digits.get_config(name).to_dict())


def test_arms_differ_in_the_model_alone():
    ledit, dit, nope = (arm(name) for name in ("ledit", "dit", "nope"))
    assert ledit.sample == dit.sample == nope.sample and ledit.data == dit.data == nope.data
    assert ledit.train.num_steps == dit.train.num_steps == nope.train.num_steps
    assert (ledit.model.block_order, dit.model.block_order, nope.model.position) == ("sa_ca", "sa", "none")
    assert dit == with_train(arm("base"), num_steps=3_000, learning_rate=dit.train.learning_rate)


def test_the_shipped_checkpoint_is_the_recipes():
    params, config, step = load_weights(ASSET)
    assert config == arm("ledit") and step == config.train.num_steps
    assert sum(p.stat().st_size for p in ASSET.rglob("*") if p.is_file()) < 10e6
    assert params["conv"]["kernel"].shape == (3, 3, config.model.width, config.model.width)


@pytest.mark.parametrize("module", [imagenet256, imagenet256_finetune, imagenet512, imagenet512_finetune])
@pytest.mark.parametrize("name", ["LEDiT-XL/2", "DiT-S/8", "NoPE-B/4"])
def test_imagenet_configs_are_valid_and_the_papers(module, name):
    config = Config.from_dict(module.get_config(name).to_dict())
    train, side = config.train, 512 if "512" in module.__name__ else 256
    assert (config.data.image_height, config.data.image_width) == (side, side) and config.in_channels == 4
    assert (train.batch_size, train.learning_rate, train.weight_decay, train.ema_decay) == (256, 1e-4, 0.0, 0.9999)
    assert train.num_steps == (100_000 if "finetune" in module.__name__ else 400_000)
    assert train.dilation_probability == (0.1 if name.startswith("LEDiT") else 0.0)


def test_last_step_ignores_a_line_that_is_being_written(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    assert last_step(metrics) == 0
    metrics.write_text('{"step": 10, "loss": 1}\n{"step": 20, "lo')
    assert last_step(metrics) == 10


def test_export_is_the_ema_of_the_run(tmp_path):
    state = train(with_train(tiny_config(), num_steps=2), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "export")
    params, _, step = load_weights(tmp_path / "export")
    assert step == 2
    assert (params["patch_embed"]["kernel"] == state.ema["patch_embed"]["kernel"]).all()
    assert (params["patch_embed"]["kernel"] != state.params["patch_embed"]["kernel"]).any()
