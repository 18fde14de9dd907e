"""MMDiT: its sizes, its stack, and what its positions, T' and the text do to each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import torch_scans
from tiny import network_of, noisy_params, tiny_mmdit

from ledit_jax.config import AutoencoderConfig, Config, attention_kinds, model_preset
from ledit_jax.models import abstract_params, count_params, make_apply
from ledit_jax.models.functional import make_graphdef
from ledit_jax.models.mmdit import all_but_last
from ledit_jax.ops.attention import attention_scale

TIMES = jnp.array([0.2, 0.8], jnp.float32)
QUICK = {"xla_backend_optimization_level": 0}


def inputs(config, height=8, width=12):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, height, width, 1)), jnp.float32)
    states = jnp.asarray(rng.normal(size=(2, config.text.length, config.text.width)), jnp.float32)
    return x, {"states": states, "given": jnp.array([True, True])}


def test_parameter_counts():
    """Of REPA's network without its heads and fixed table; LEMMDiT's convolution is dense, with bias."""

    def count(name):
        values = tiny_mmdit().to_dict() | {
            "model": dataclasses.asdict(model_preset(name)),
            "text": {"encoder": "clip"},
            "autoencoder": dataclasses.asdict(AutoencoderConfig(kind="sd")),
            "data": {},
        }
        params = abstract_params(network_of(Config.from_dict(values)))
        return count_params({name: leaf for name, leaf in params.items() if name != "empty_caption"})

    assert count("MMDiT-24/2") == 505_070_608
    assert count("LEMMDiT-24/2") - 505_070_608 == 9 * 768**2 + 768 == 5_309_184
    model = model_preset("LEMMDiT-24/2")
    assert (model.depth, model.width, model.num_heads) == (24, 768, 24)
    small, bare = model_preset("LEMMDiT-S/2"), model_preset("NoPE-MMDiT-B/4")
    assert (small.width // small.num_heads, bare.width // bare.num_heads, bare.patch_size) == (32, 32, 4)


@pytest.mark.parametrize("order", ["sa_ca", "ca_sa", "sa_then_ca", "ca_then_sa", "sa", "ca", "single_ca"])
def test_the_last_block_is_taken_off_the_order(order):
    for depth in (2, 4, 8):
        segments, last = all_but_last(attention_kinds(order, depth))
        kinds = [kind for unit, repeats in segments for _ in range(repeats) for kind in unit]
        assert [*kinds, last] == torch_scans.block_kinds(order, depth)


def test_scanned_and_recomputed_it_is_the_same():
    """Gradients too; of the empty caption there is none, even where no text is given."""
    results = []
    for model in (dict(scan_layers=False), dict(scan_layers=True, remat="full")):
        config = tiny_mmdit(model=dict(depth=3, block_order="ca") | model)
        params = noisy_params(config)
        apply, (x, condition) = make_apply(network_of(config)), inputs(config)
        condition["given"] = jnp.array([True, False])
        loss = lambda params, apply=apply: jnp.square(apply(params, x, TIMES, condition)).sum()  # noqa: B023, E731
        results.append(jax.jit(jax.value_and_grad(loss), compiler_options=QUICK)(params))
        assert not results[-1][1]["empty_caption"].any()
        text = results[-1][1]["blocks"]["text"]["attn"]["qkv"]["kernel"]
        assert text.shape[0] == 2 and text.any(axis=(1, 2)).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4), *results)


def run(config, params, condition=None):
    x, given = inputs(config)
    return np.asarray(make_apply(network_of(config))(params, x, TIMES, condition or given))


def test_the_threshold_is_in_a_flow_s_own_time():
    config = tiny_mmdit()
    params = noisy_params(config)
    causal, plain = run(config, params), run(config.replaced("model", block_order="sa"), params)
    some = run(config.replaced("model", causal_from_timestep=0.5), params)
    np.testing.assert_array_equal(some[1], causal[1])
    np.testing.assert_allclose(some[0], plain[0], atol=1e-5)
    assert abs(causal[0] - plain[0]).max() > 1e-3


def test_attention_scaling_counts_image_tokens():
    config = tiny_mmdit()
    network = network_of(config).for_sampling(config.sample)
    model = nnx.merge(make_graphdef(network), noisy_params(config))
    context = model.context((4, 6), TIMES, num_prefix=config.text.length)
    assert (config.num_tokens(), context.logit_scale) == (16, np.float32(attention_scale(24, 16)))


def test_text_is_a_set_of_tokens_and_an_image_is_not():
    """Rotary tables turn image tokens alone, so the order of the text's tokens says nothing, and its content does."""
    config = tiny_mmdit("RoPE-MMDiT")
    params, (_, condition) = noisy_params(config), inputs(config)
    out = run(config, params)
    turned = run(config, params, condition | {"states": condition["states"][:, ::-1]})
    np.testing.assert_allclose(turned, out, atol=1e-5)
    assert abs(run(config, params, condition | {"states": 2 * condition["states"]}) - out).max() > 1e-3
    assert abs(run(config.replaced("model", position="none"), params) - out).max() > 1e-3
