"""`model.matmul_precision` is on every product of the network and of its gradient; the default puts nothing there."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import network_of, tiny_config

from ledit_jax.config import Config
from ledit_jax.errors import ConfigError
from ledit_jax.models import abstract_params, make_apply
from ledit_jax.models.autoencoders import abstract_vae
from ledit_jax.models.vae import VAEConfig
from ledit_jax.ops.attention import attention, check_backend, choose_backend
from ledit_jax.sampling import decoding
from ledit_jax.sampling.loading import load_model
from ledit_jax.sampling.pipeline import LEDiTPipeline

MODELS = {
    "LEDiT": tiny_config("LEDiT", model=dict(scan_layers=True, post_norm=True, remat="dots")),
    "DiT": tiny_config("DiT"),
    "depthwise": tiny_config("LEDiT", model=dict(conv="depthwise")),
    "learnable": tiny_config("Learnable"),
    "FiT": tiny_config("FiTBlock"),
}


def products(config, size=(8, 8)):
    """The lines of the gradient's program that multiply matrices or convolve."""
    apply = make_apply(network_of(config))

    def loss(params, x, t, y):
        return jnp.square(apply(params, x, t, y)).sum()

    inputs = jnp.zeros((2, *size, 1)), jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.int32)
    text = jax.jit(jax.grad(loss)).lower(abstract_params(network_of(config)), *inputs).as_text()
    found = [line for line in text.splitlines() if re.search(r"stablehlo\.(dot_general|convolution)", line)]
    assert len(found) > 20
    return found


def abstract_arrays(config):
    """Zeros in the place of its parameters."""
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), abstract_params(network_of(config)))


def with_precision(config, precision):
    return config.replaced("model", matmul_precision=precision)


@pytest.mark.parametrize("name", MODELS)
def test_highest_is_on_every_product(name):
    lines = products(with_precision(MODELS[name], "highest"), size=(8, 12) if name == "learnable" else (8, 8))
    assert not [line for line in lines if line.count("HIGHEST") != 2]


def test_high_is_another_one_and_the_default_none():
    assert all(
        line.count("HIGH,") + line.count("HIGH]") + line.count("HIGH>") == 2
        for line in products(with_precision(MODELS["DiT"], "high"))
    )
    assert not [line for line in products(MODELS["DiT"]) if "HIGH" in line]


def test_the_default_follows_the_context():
    with jax.default_matmul_precision("highest"):
        assert all(line.count("HIGHEST") == 2 for line in products(MODELS["DiT"]))


def test_it_is_about_float32():
    with pytest.raises(ConfigError, match="matmul_precision=high is about float32 products, and model.dtype=bfloat16"):
        Config.from_dict({"model": {"matmul_precision": "high", "dtype": "bfloat16"}})


def test_fused_kernels_are_passed_over():
    assert choose_backend("tpu", 1024, np.dtype("float32"), 64) == "splash"
    assert choose_backend("tpu", 1024, np.dtype("float32"), 64, precision="highest") == "xla"
    with pytest.raises(ConfigError, match="splash takes no model.matmul_precision=high: use xla"):
        check_backend("splash", "tpu", np.dtype("float32"), 64, precision="high")
    q = jnp.zeros((1, 4, 2, 8))
    text = jax.jit(lambda q: attention(q, q, q, grid=(2, 2), precision="highest")).lower(q).as_text()
    assert text.count("HIGHEST") == 4


def test_loading_a_model_to_check_a_port():
    model, config = load_model(Path(__file__).parents[2] / "assets/digits", matmul_precision="highest")
    assert config.model.matmul_precision == "highest"
    text = model.func.lower(*model.args, jnp.zeros((1, 16, 16, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32)).as_text()
    assert text.count("HIGHEST") == 2 * len(re.findall(r"stablehlo\.(?:dot_general|convolution)", text)) > 40


@pytest.mark.parametrize("precision", ["default", "highest"])
def test_the_vae_decodes_as_precisely(monkeypatch, precision):
    found = []

    def decode(graphdef, state, latents, *rest):
        found.append(jax.config.jax_default_matmul_precision)
        return latents

    monkeypatch.setattr(decoding, "decode_latents", decode)
    config = with_precision(MODELS["LEDiT"], precision)
    pipe = LEDiTPipeline(config, abstract_arrays(config))
    sizes = VAEConfig(block_out_channels=(8,), norm_num_groups=4)
    pipe.vae = decoding.PlacedVAE(*abstract_vae(sizes), sizes)
    pipe.decode(jnp.zeros((1, 8, 8, 1)))
    assert found == [None if precision == "default" else "highest"]


def test_a_checkpoint_without_the_field_is_the_default():
    values = MODELS["LEDiT"].to_dict()
    old = {name: value for name, value in values["model"].items() if name not in ("matmul_precision", "residual_dtype")}
    assert Config.from_dict(values | {"model": old}) == MODELS["LEDiT"]
