"""Config: what it accepts, the one line it gives for what it does not, and the presets."""

import dataclasses
import importlib
import json

import pytest

from ledit_jax.config import Config, attention_kinds, model_preset, validate
from ledit_jax.errors import ConfigError


def test_round_trips_through_a_config_dict_and_json():
    config = Config(model=model_preset("LEDiT-XL/2", dtype="bfloat16"))
    assert Config.from_dict(config.to_config_dict().to_dict()) == config
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_attention_scaling_as_earlier_versions_wrote_it():
    for old, new in ((True, "on"), (False, "off")):
        assert Config.from_dict({"sample": {"attention_scaling": old}}).sample.attention_scaling == new
    assert Config.from_dict({}).sample.attention_scaling == "auto"


TEXT = {"text": {"encoder": "words"}}
BAD = {
    "modle": ({"modle": {}}, "config key modle is unknown: did you mean model?"),
    "widht": ({"model": {"widht": 3}}, "config key model.widht is unknown: did you mean width?"),
    "scan": ({"model": {"scan": "e"}}, "model.scan='e' is unknown"),
    "type": ({"model": {"depth": 2.5}}, "model.depth=2.5 is a float, and a int is needed"),
    "bool": ({"model": {"depth": True}}, "model.depth=True is a bool"),
    "heads": ({"model": {"num_heads": 7}}, "model.num_heads=7 does not divide model.width=384"),
    "odd": ({"model": {"depth": 3}}, "model.depth=3 is odd"),
    "size": ({"data": {"image_height": 17}}, "height=17 is not a positive multiple of 2"),
    "steps": ({"sample": {"num_steps": 1001}}, "sample.num_steps=1001 is more than diffusion.num_timesteps=1000"),
    "sampler": ({"sample": {"sampler": "ddmp"}}, "sample.sampler='ddmp' is unknown: did you mean ddpm?"),
    "accumulation": ({"train": {"accumulation_steps": 3}}, "train.accumulation_steps=3 does not divide"),
    "ema": ({"train": {"ema_decay": 1.5}}, "train.ema_decay=1.5 is not between 0 and 1"),
    "dilation": ({"model": {"conv": "none"}}, "train.dilation_probability=0.1 has no convolution"),
    "rates": ({"train": {"dilation_rates": (0,)}}, "train.dilation_rates=(0,) must be"),
    "zero": ({"train": {"batch_size": 0}}, "train.batch_size=0 must be greater than 0"),
    "threshold": ({"model": {"causal_from_timestep": 2000}}, "model.causal_from_timestep=2000 is not between"),
    "workers": ({"data": {"num_workers": -1}}, "data.num_workers=-1 must not be negative"),
    "seed": ({"train": {"seed": -1}}, "train.seed=-1 must not be negative"),
    "order": ({"sample": {"cfg_interval": (0.8, 0.2)}}, "sample.cfg_interval=(0.8, 0.2) must be two shares"),
    "bad share": ({"data": {"max_bad_share": 2}}, "data.max_bad_share=2.0 is not between 0 and 1"),
    "no text": ({"model": {"network": "mmdit"}}, "model.network=mmdit with text.encoder=none"),
    "no use of text": ({"text": {"encoder": "clip"}}, "model.network=ledit with text.encoder=clip"),
    "encoder of nothing": ({"text": {"checkpoint": "c"}}, "text.checkpoint='c' has no effect with text.encoder=none"),
    "block": (TEXT | {"model": {"network": "mmdit", "block": "fit"}}, "model.block=fit is not made for"),
    "lookhere": (TEXT | {"model": {"network": "mmdit", "position": "lookhere"}}, "model.position=lookhere directs"),
    "period": ({"model": {"timestep_max_period": 0.0}}, "model.timestep_max_period=0.0 must be greater than 0"),
    "shift": (
        {"model": {"timestep_frequency_shift": 128}},
        "model.timestep_frequency_shift=128.0 is too large: use at",
    ),
    "beta": ({"diffusion": {"beta_end": 1}}, "diffusion.beta_end=1.0 is too large: use at most 0.999"),
    "timesteps": ({"diffusion": {"num_timesteps": 10**9}}, "diffusion.num_timesteps=1000000000 is too large"),
    "downsample": ({"autoencoder": {"downsample": 0}}, "autoencoder.downsample=0 must be greater than 0"),
    "means": ({"autoencoder": {"latents_mean": (0.1,)}}, "autoencoder.latents_mean has 1 numbers for"),
    "spreads": ({"autoencoder": {"latents_std": (1.0, 1.0, 0.0, 1.0)}}, "must be greater than 0, each of them"),
    "hidden": ({"model": {"mlp_ratio": 1e-9}}, "model.mlp_ratio=1e-09 leaves model.width=384 no hidden layer"),
    "rate": ({"train": {"dilation_rates": (2**31,)}}, "train.dilation_rates=(2147483648,) is too large"),
    "interval": ({"sample": {"cfg_interval": (0.1,)}}, "sample.cfg_interval=(0.1,) needs 2 values"),
}


@pytest.mark.parametrize("values, message", BAD.values(), ids=BAD.keys())
def test_what_cannot_work_is_named_on_one_line(values, message):
    with pytest.raises(ConfigError) as error:
        Config.from_dict(values)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_presets_are_those_of_the_dit_paper():
    xl = model_preset("LEDiT-XL/2")
    assert (xl.depth, xl.width, xl.num_heads, xl.patch_size) == (28, 1152, 16, 2)
    assert (xl.position, xl.block_order, xl.conv) == ("none", "sa_ca", "dense")
    dit = model_preset("DiT-S/8")
    assert (dit.depth, dit.width, dit.num_heads, dit.patch_size) == (12, 384, 6, 8)
    assert (dit.position, dit.block_order, dit.conv) == ("sincos", "sa", "none")
    for name in ("LEDiT-XXL/2", "LEDiT-S/3", "PixArt-S/2", "LEDiT", "FiTv2-XL/2"):
        with pytest.raises(ConfigError, match="is unknown: use FAMILY-SIZE/PATCH"):
            model_preset(name)


def test_block_orders():
    def flat(order, depth):
        return [kind for unit, repeats in attention_kinds(order, depth) for kind in unit * repeats]

    assert flat("sa_ca", 4) == ["sa", "ca", "sa", "ca"] and flat("ca_sa", 4) == ["ca", "sa", "ca", "sa"]
    assert flat("sa_then_ca", 4) == ["sa", "sa", "ca", "ca"] and flat("ca_then_sa", 4) == ["ca", "ca", "sa", "sa"]
    assert flat("sa", 3) == ["sa"] * 3 and flat("ca", 3) == ["ca"] * 3
    assert flat("single_ca", 4) == ["ca", "sa", "sa", "sa"] and flat("single_ca", 1) == ["ca"]


def test_latents_and_pixels_have_their_own_granularity():
    pixels = Config()
    latents = dataclasses.replace(pixels, autoencoder=dataclasses.replace(pixels.autoencoder, kind="sd"))
    validate(latents)
    assert pixels.latent_shape(34, 20) == (34, 20, 3) and pixels.num_tokens(34, 20) == 170
    assert latents.latent_shape(512, 384) == (64, 48, 4) and latents.num_tokens(512, 384) == 768
    with pytest.raises(ConfigError, match="width=40 is not a positive multiple of 16 .*: use 32 or 48"):
        latents.latent_shape(32, 40)


def test_both_configs_at_512_recompute_alike():
    """With nothing recomputed the step does not fit the slice that they are sized for."""
    models = [importlib.import_module(f"configs.imagenet512{kind}").get_config().model for kind in ("", "_finetune")]
    assert [model.remat for model in models] == ["dots", "dots"]
