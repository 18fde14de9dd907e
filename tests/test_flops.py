"""FLOPs by our count against XLA's own count of an unrolled network, and against published figures."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from tiny import network_of, tiny_config, tiny_mmdit

from ledit_jax import flops
from ledit_jax.config import AutoencoderConfig, Config, DataConfig, model_preset
from ledit_jax.flops import model_flops_utilization
from ledit_jax.models.autoencoders import abstract_vae
from ledit_jax.models.dcae_config import DCAEConfig
from ledit_jax.models.functional import abstract_params, make_apply
from ledit_jax.models.vae_config import VAEConfig

BATCH = 4
DCAE = dict(
    block_out_channels=(64, 128, 256),
    encoder_layers=(1, 1, 1),
    decoder_layers=(1, 2, 1),
    attention_levels=2,
    head_dim=32,
)


def wide(**model) -> Config:
    """Wide enough for products to outweigh what is done element by element, which XLA counts and we do not."""
    config = tiny_config(
        train=dict(dilation_probability=0.0),
        model=dict(width=384, num_heads=3, patch_size=1, attention="reference") | model,
    )
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=BATCH))


def forward_flops(config: Config, height: int | None = None, width: int | None = None) -> int:
    return flops.forward_flops(abstract_params(network_of(config)), config.token_grid(height, width))


def xla_flops(config: Config, gradient: bool) -> float:
    network = network_of(config)
    apply, params = make_apply(network), abstract_params(network)
    x = jax.ShapeDtypeStruct((BATCH, *config.latent_shape()), jnp.float32)
    t, y = jax.ShapeDtypeStruct((BATCH,), jnp.int32), jax.eval_shape(lambda: network.condition.null(BATCH))

    def loss(params, x, t, y):
        return jnp.square(apply(params, x, t, y)).sum()

    step = jax.grad(loss) if gradient else loss
    return jax.jit(step).lower(params, x, t, y).compile().cost_analysis()["flops"]


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"conv": "none", "block_order": "sa"},
        {"conv": "depthwise", "mlp_ratio": 2.0, "depth": 4},
        {"patch_size": 2},
        {"block": "fit", "position": "rope", "conv": "none", "block_order": "sa"},
    ],
    ids=["ledit", "dit", "depthwise", "patches", "fit"],
)
def test_forward_is_what_xla_counts(model):
    config = wide(**model)
    assert 1 <= xla_flops(config, gradient=False) / (BATCH * forward_flops(config)) < 1.03


@pytest.mark.parametrize(
    "vae",
    [
        VAEConfig(block_out_channels=(64, 128), layers_per_block=1, norm_num_groups=4, level_attention=True),
        DCAEConfig(**DCAE, scales=(3, 5)),
        DCAEConfig(**DCAE, folds=True),
    ],
    ids=["kl", "dc", "dc-folds"],
)
def test_decoders_are_what_xla_counts(vae):
    graphdef, state = abstract_vae(vae)
    latents = jax.ShapeDtypeStruct((1, 40, 48, vae.latent_channels), jnp.float32)
    decode = jax.jit(lambda state, latents: nnx.merge(graphdef, state).decode(latents))
    counted = decode.lower(state, latents).cost_analysis()["flops"] / flops.decoder_flops(vae, (40, 48))
    assert 0.99 < counted < 1.01


def test_text_counts():
    """XLA leaves out what the last block's text queries would get."""
    config = tiny_mmdit(model=dict(width=384, num_heads=3, patch_size=1, attention="reference"))
    config = config.replaced("text", length=40, width=96)
    assert 0.98 < xla_flops(config, gradient=False) / (BATCH * forward_flops(config)) < 1.03


def test_a_step_is_three_forwards():
    config = wide()
    step = flops.train_step_flops(abstract_params(network_of(config)), config.token_grid(), BATCH)
    assert 0.97 < xla_flops(config, gradient=True) / step < 1.05


def test_published_figures():
    """Multiply-adds at 256x256 as in table 4 of the DiT paper (arXiv 2212.09748), in units of 1e9."""
    for name, expected in [("DiT-XL/2", 118.64), ("DiT-L/2", 80.71), ("DiT-B/4", 5.56), ("DiT-S/8", 0.36)]:
        config = Config(model=model_preset(name), data=DataConfig(), autoencoder=AutoencoderConfig(kind="sd"))
        assert forward_flops(config) / 2e9 == pytest.approx(expected, rel=0.01, abs=0.005)


def test_size_matters():
    config = Config(model=model_preset("LEDiT-XL/2"), data=DataConfig(), autoencoder=AutoencoderConfig(kind="sd"))
    assert forward_flops(config, 256, 256) == forward_flops(config) < forward_flops(config, 512, 512) / 4
    assert forward_flops(config, 256, 512) == forward_flops(config, 512, 256)


def test_utilization_is_against_the_device_by_name():
    assert model_flops_utilization(989e12, "NVIDIA H100 80GB HBM3", 2) == pytest.approx(0.5)
    assert model_flops_utilization(197e12, "TPU v5 lite", 1) == pytest.approx(1)
    for unknown in ("cpu", "NVIDIA H100 PCIe", "NVIDIA H200 NVL", ""):
        assert model_flops_utilization(1e12, unknown, 1) is None
