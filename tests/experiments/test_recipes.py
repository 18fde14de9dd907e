"""The configs: what the repository ships is one of them, and ImageNet's are the paper's."""

from pathlib import Path

import pytest

from configs import (
    digits,
    imagenet256,
    imagenet256_finetune,
    imagenet256_flow,
    imagenet256_flow_finetune,
    imagenet256_refined,
    imagenet512,
    imagenet512_finetune,
)
from experiments.study.config import StudyConfig, arm_config
from ledit_jax.config import Config, attention_kinds
from ledit_jax.weights import load_weights

ASSET = Path(__file__).parents[2] / "assets" / "digits"


def test_the_shipped_checkpoint_is_the_recipes():
    params, config, step = load_weights(ASSET)
    recipe = Config.from_dict(digits.get_config("flow").to_dict())
    assert config == recipe and step == recipe.train.num_steps
    assert sum(p.stat().st_size for p in ASSET.rglob("*") if p.is_file()) < 10e6
    assert params["conv"]["kernel"].shape == (3, 3, config.model.width, config.model.width)


@pytest.mark.parametrize(
    "module",
    [imagenet256, imagenet256_finetune, imagenet256_flow, imagenet256_flow_finetune, imagenet512, imagenet512_finetune],
)
@pytest.mark.parametrize("name", ["LEDiT-XL/2", "LEDiT*-XL/2", "DiT-S/8", "NoPE-B/4"])
def test_imagenet_configs_are_valid_and_the_papers(module, name):
    config = Config.from_dict(module.get_config(name).to_dict())
    train, side = config.train, 512 if "512" in module.__name__ else 256
    assert (config.data.image_height, config.data.image_width) == (side, side) and config.in_channels == 4
    assert (train.batch_size, train.learning_rate, train.weight_decay, train.ema_decay) == (256, 1e-4, 0.0, 0.9999)
    assert train.num_steps == (100_000 if "finetune" in module.__name__ else 400_000)
    assert train.dilation_probability == (0.1 if name == "LEDiT-XL/2" else 0.0)


def test_the_refined_ledit_is_the_papers():
    """Appendix F: LayerNorm after the convolution, one causal layer, no multi-dilation, and no threshold T'."""
    refined = Config.from_dict(imagenet256_refined.get_config().to_dict())
    study = arm_config(StudyConfig(experiment=Config()), "ledit-refined", 0)
    for config in (refined, study):
        model = config.model
        kinds = [kind for unit, n in attention_kinds(model.block_order, model.depth) for kind in unit * n]
        assert model.conv == "dense" and model.post_norm and kinds.count("ca") == 1
        assert model.causal_from_timestep == 0 and config.train.dilation_probability == 0
    assert (refined.model.depth, refined.model.width) == (28, 1152)
