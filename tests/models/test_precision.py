"""bfloat16 is for matrix products: outputs, parameters and timesteps stay float32."""

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import ledit_params, torch_dit

from ledit_jax.config import ModelConfig
from ledit_jax.models.embed import FinalLayer, timestep_frequencies
from ledit_jax.models.functional import round_for_products

CONFIG = ModelConfig(depth=2, width=64, num_heads=4, num_classes=10, post_norm=True)
X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 12, 4)), jnp.float32)
Y = jnp.array([0, 3, 10])


@pytest.fixture(scope="module")
def forwards():
    """{dtype: jitted function of (params, x, t)} and the parameters of both."""
    peer = torch_dit.torch_peer(CONFIG)
    functions = {}
    for dtype in ("float32", "bfloat16"):
        config = dataclasses.replace(CONFIG, dtype=dtype)
        graphdef, params = nnx.split(ledit_params.ledit_peer(peer, config))
        functions[dtype] = jax.jit(lambda params, x, t, graphdef=graphdef: nnx.merge(graphdef, params)(x, t, Y))
    return functions, params


def test_output_is_float32_and_close(forwards):
    functions, params = forwards
    t = jnp.array([0, 500, 999])
    want, got = (functions[dtype](params, X, t) for dtype in ("float32", "bfloat16"))
    assert got.dtype == want.dtype == jnp.float32
    difference = np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2))
    assert 1e-4 < difference < 0.05  # more than rounding of float32: products really are bfloat16


def test_weights_rounded_beforehand_give_the_same_numbers(forwards):
    functions, params = forwards
    rounded = round_for_products(params, "bfloat16")
    leaves = nnx.to_flat_state(rounded)
    kept = {"/".join(map(str, path)) for path, leaf in leaves if leaf[...].dtype == jnp.float32}
    assert kept == {"conv_norm/bias", "conv_norm/scale", "label_embed/embedding"}
    t = jnp.array([0, 500, 999])
    np.testing.assert_array_equal(*(functions["bfloat16"](weights, X, t) for weights in (params, rounded)))


def test_the_last_sum_is_not_rounded():
    """Guidance multiplies the difference of two outputs, and would multiply their rounding to bfloat16."""
    layer = FinalLayer(dataclasses.replace(CONFIG, dtype="bfloat16"), 8, nnx.Rngs(0))
    layer.linear.kernel[...] = jax.random.normal(jax.random.key(0), layer.linear.kernel.shape)
    x, condition = jax.random.normal(jax.random.key(1), (2, 6, 64), jnp.bfloat16), jnp.zeros((2, 64), jnp.bfloat16)
    out = layer(x, condition)
    assert out.dtype == jnp.float32
    assert (out != out.astype(jnp.bfloat16)).mean() > 0.9


def test_matrix_products_are_bfloat16_and_parameters_float32(forwards):
    functions, params = forwards
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    text = functions["bfloat16"].lower(params, X, jnp.array([1, 2, 3])).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line or "convolution" in line]
    assert len(products) > 10
    assert all("xbf16>" in line.split(" : ")[-1].split("->")[0] for line in products)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_neighbouring_timesteps_differ(forwards, dtype):
    functions, params = forwards
    outs = [np.asarray(functions[dtype](params, X, jnp.full(3, t))) for t in (750, 751, 752)]
    # bfloat16 has the same number for all three
    assert all(np.abs(a - b).max() > 1e-3 for a, b in pairwise(outs))


def test_timestep_sinusoids_are_float32():
    got = timestep_frequencies(jnp.array([750, 752]), 10_000.0)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got[:, 0], np.cos([750.0, 752.0]), atol=1e-4)
