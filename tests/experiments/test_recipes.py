"""The configs: what the repository ships is one of them, ImageNet's are the paper's, and every study can be run."""

import dataclasses
from pathlib import Path

import pytest

from configs import (
    digits,
    glyphs,
    imagenet256,
    imagenet256_finetune,
    imagenet256_flow,
    imagenet256_flow_finetune,
    imagenet256_refined,
    imagenet512,
    imagenet512_finetune,
    study_digits,
    study_flow,
    study_glyphs,
    study_photos,
)
from experiments.study.config import StudyConfig, arm_config
from experiments.study.methods import ARMS, BASE, METHODS, find_method
from ledit_jax.config import Config, attention_kinds
from ledit_jax.errors import ConfigError
from ledit_jax.weights import load_weights

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.mark.parametrize(
    ("name", "recipe", "study", "method"),
    [
        ("digits", digits.get_config("flow"), study_digits.study("flow"), "ledit"),
        ("glyphs", glyphs.get_config(), study_glyphs.study(), "ledit-xavier-norm"),
    ],
)
def test_the_shipped_checkpoints_are_the_recipes(name, recipe, study, method):
    params, config, step = load_weights(ASSETS / name)
    recipe = Config.from_dict(recipe.to_dict())
    assert config == recipe == arm_config(study, method, 0) and step == recipe.train.num_steps
    assert sum(p.stat().st_size for p in (ASSETS / name).rglob("*") if p.is_file()) < 10e6
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


def test_every_method_has_an_arm_that_is_a_valid_model():
    study, by_flow = study_digits.study(), study_digits.study("flow")
    assert {method.arm for method in METHODS.values()} == set(ARMS)
    configs = {arm: arm_config(study, arm, 0) for arm in ARMS}
    assert configs["ledit"] == Config.from_dict(digits.get_config("ledit").to_dict())
    assert arm_config(study, BASE, 0) == Config.from_dict(digits.get_config("base").to_dict())
    for arm, recipe in (("ledit", "flow"), (BASE, "flow-base")):
        assert arm_config(by_flow, arm, 0) == Config.from_dict(digits.get_config(recipe).to_dict())
    # The study of flow beside diffusion trains the same network, and draws it with the diffusion's guidance.
    drawn = by_flow.experiment.sample
    assert dataclasses.replace(configs["ledit-flow"], sample=drawn) == arm_config(by_flow, "ledit", 0)
    # The same budget for all, whatever else differs.
    budgets = {(c.train.num_steps, c.train.batch_size, c.train.learning_rate, c.train.seed) for c in configs.values()}
    assert len(budgets) == 1
    acting_at_sampling = ("rope", "ntk", "yarn", "riflex", "dype-ntk", "dype-yarn-scaled", "rope-unscaled")
    assert len({find_method(name).arm for name in acting_at_sampling}) == 1
    scaled, unscaled = (find_method(f"yarn-{ending}@ddim-8") for ending in ("scaled", "unscaled"))
    assert (scaled.sample | {"attention_scaling": "off"}) == unscaled.sample != scaled.sample
    shifted = find_method("yarn-shift@ab2-8")
    assert shifted.sample == unscaled.sample | {"time_shift": "auto", "sampler": "ab2"}
    assert shifted.label == "RoPE + VisionYaRN + time shift, ab2, 8 calls"


def test_study_configs_are_valid(tmp_path):
    for module in (study_digits, study_flow, study_glyphs, study_photos):
        values = module.get_config().to_dict()
        assert all(find_method(name) for name in values["methods"])
        values["methods"] = ["dit"]  # checking each method at each size takes a second
        if module is study_photos:
            with pytest.raises(ConfigError, match="images='' does not exist"):
                StudyConfig.from_dict(values)
            values["images"] = str(tmp_path)
        assert StudyConfig.from_dict(values).trained_size == (16, 16)
