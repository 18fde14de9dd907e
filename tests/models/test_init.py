"""Initial parameters of every layer, what they imply at step 0, and parameter counts."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from oracles import ledit_params, torch_dit
from tiny import build_ledit

from ledit_jax.config import ModelConfig, model_preset
from ledit_jax.models.conv import MultiDilationConv

CONFIG = ModelConfig(depth=2, width=96, num_heads=4, num_classes=100, conv_init="xavier", post_norm=True)


def initial_params(config, in_channels=4, seed=0):
    """{dotted name: array} of a freshly initialised model."""
    init = jax.jit(lambda: nnx.state(build_ledit(config, in_channels, nnx.Rngs(seed)), nnx.Param))
    flat = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(init()))
    return {".".join(key.key for key in path): np.asarray(leaf) for path, leaf in flat}


@pytest.fixture(scope="module")
def params():
    return initial_params(CONFIG)


def layers(array, name):
    """The layers of a stacked parameter one by one, any other parameter alone."""
    return list(array) if name.startswith("blocks.") else [array]


XAVIER = {  # fan in + fan out
    "patch_embed.kernel": 16 + 96,
    "blocks.attn.qkv.kernel": 96 + 3 * 96,
    "blocks.attn.proj.kernel": 96 + 96,
    "blocks.mlp.fc1.kernel": 96 + 4 * 96,
    "blocks.mlp.fc2.kernel": 4 * 96 + 96,
    "conv.kernel": 9 * 96 + 9 * 96,
}
NORMAL = ("timestep_embed.fc1.kernel", "timestep_embed.fc2.kernel", "label_embed.embedding")
ZERO = ("blocks.adaln.kernel", "final_layer.adaln.kernel", "final_layer.linear.kernel")


def test_every_parameter_has_a_rule(params):
    ruled = {*XAVIER, *NORMAL, *ZERO, "conv_norm.scale"}
    assert ruled | {name for name in params if name.endswith("bias")} == set(params)
    assert ruled <= set(params)
    assert all(array.dtype == np.float32 for array in params.values())


@pytest.mark.parametrize("name", XAVIER)
def test_xavier_uniform(params, name):
    bound = math.sqrt(6 / XAVIER[name])
    for kernel in layers(params[name], name):
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        assert abs(kernel.std() / (bound / math.sqrt(3)) - 1) < 0.04  # a uniform's, not a normal's
        assert abs(kernel.mean()) < 0.1 * bound


@pytest.mark.parametrize("name", NORMAL)
def test_normal_of_scale_002(params, name):
    kernel = params[name]
    assert abs(kernel.std() / 0.02 - 1) < 0.04
    assert abs(kernel.mean()) < 0.001
    assert 0.06 < np.abs(kernel).max() < 0.12  # tails beyond three sigma: neither uniform nor truncated


def test_zeros_and_ones(params):
    for name, array in params.items():
        if name in ZERO or name.endswith("bias"):
            assert (array == 0).all(), name
    assert (params["conv_norm.scale"] == 1).all()


def test_layers_and_seeds_differ(params):
    qkv = params["blocks.attn.qkv.kernel"]
    assert np.abs(np.corrcoef(qkv[0].ravel(), qkv[1].ravel())[0, 1]) < 0.05
    other = initial_params(CONFIG, seed=1)
    assert all((params[name] != other[name]).mean() > 0.99 for name in (*XAVIER, *NORMAL))


@pytest.mark.parametrize("conv", ["dense", "depthwise"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_identity_convolution_changes_nothing(conv, dtype):
    config = ModelConfig(width=24, conv=conv, dtype=dtype)
    layer = MultiDilationConv(config, nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 7, 24)), dtype)
    for dilation in (1, 2):
        np.testing.assert_array_equal(layer(x, dilation), x)
    assert layer.kernel.shape == (3, 3, 24 if conv == "dense" else 1, 24)


@pytest.mark.parametrize("conv", ["dense", "depthwise"])
def test_xavier_convolution_keeps_the_spread(conv):
    config = ModelConfig(width=128, conv=conv, conv_init="xavier")
    layer = MultiDilationConv(config, nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 18, 18, 128)), jnp.float32)
    inside = layer(x)[:, 1:-1, 1:-1]  # where no zero is padded
    assert abs(inside.std() / x.std() - 1) < 0.1


@pytest.mark.parametrize("conv", ["dense", "depthwise"])
def test_noise_beside_the_identity_is_half_of_xaviers(conv):
    layers = {
        init: MultiDilationConv(_conv(conv, init), nnx.Rngs(0)) for init in ("identity", "xavier", "identity_noise")
    }
    kernels = {init: layer.kernel[...] for init, layer in layers.items()}
    noise = kernels["identity_noise"] - kernels["identity"]
    np.testing.assert_allclose(noise, kernels["xavier"] / 2, atol=1e-7)


def _conv(conv, init):
    return ModelConfig(width=24, conv=conv, conv_init=init)


def test_identity_convolution_starts_from_the_network_without_it():
    config = ModelConfig(depth=2, width=32, num_heads=4, num_classes=10, block_order="ca")
    without = dataclasses.replace(config, conv="none")
    peer = torch_dit.torch_peer(without)
    tensors = dict(peer.named_parameters())
    tensors["conv.weight"] = torch.zeros(32, 32, 3, 3)
    tensors["conv.weight"][range(32), range(32), 1, 1] = 1
    tensors["conv.bias"] = torch.zeros(32)

    model = build_ledit(config, 4, nnx.Rngs(0))
    graphdef, fresh = nnx.split(model, nnx.Param)
    params = ledit_params.to_ledit_tree(tensors, fresh)
    for name in ("kernel", "bias"):  # what an identity is in PyTorch is what ours starts as
        np.testing.assert_array_equal(params["conv"][name][...], fresh["conv"][name][...])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 12, 4)), jnp.float32)
    t = jnp.array([3, 7])
    run = jax.jit(lambda model: model(x, t, t))
    np.testing.assert_array_equal(run(nnx.merge(graphdef, params)), run(ledit_params.ledit_peer(peer, without)))


def test_output_is_zero_at_initialisation():
    model = build_ledit(ModelConfig(depth=2, width=32, num_heads=4, num_classes=10, block_order="ca"), 3, nnx.Rngs(0))
    out = model(jnp.ones((2, 8, 4, 3)), jnp.array([0, 999]), jnp.array([0, 10]))
    assert out.shape == (2, 8, 4, 6)
    assert (out == 0).all()


@pytest.mark.parametrize("scan_layers", [True, False])
def test_one_block_is_a_network(scan_layers):
    config = ModelConfig(depth=1, width=32, num_heads=4, num_classes=10, block_order="single_ca")
    model = build_ledit(dataclasses.replace(config, scan_layers=scan_layers), 3, nnx.Rngs(0))
    assert model(jnp.ones((2, 8, 4, 3)), jnp.array([0, 999]), jnp.array([0, 10])).shape == (2, 8, 4, 6)


def count_ours(config):
    state = nnx.eval_shape(lambda: nnx.state(build_ledit(config, 4, nnx.Rngs(0)), nnx.Param))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize(
    ("name", "published"),
    [("DiT-S/2", 32_963_360), ("DiT-B/2", 130_512_416), ("DiT-L/2", 458_102_816), ("DiT-XL/2", 675_129_632)],
)
def test_published_parameter_counts(name, published):
    config = model_preset(name)
    table = 16 * 16 * config.width  # a frozen parameter of theirs at 32 x 32 latents, and none of ours
    assert count_ours(config) + table == published


@pytest.mark.parametrize("name", ["LEDiT-S/2", "DiT-B/4", "NoPE-L/8", "LEDiT-XL/2"])
def test_parameter_counts(name):
    """Every family, size and patch once."""
    config = model_preset(name)
    family, patch_size = name.split("-")[0], config.patch_size
    conv = (9 * config.width + 1) * config.width if family == "LEDiT" else 0
    patches = patch_size**2 * 4
    D, F, L = config.width, 4 * config.width, config.depth
    block = D * 3 * D + 3 * D + D * D + D + D * F + F + F * D + D + D * 6 * D + 6 * D
    ends = patches * D + D + 256 * D + D + D * D + D + 1001 * D + D * 2 * D + 2 * D + D * 2 * patches + 2 * patches
    assert count_ours(config) == L * block + ends + conv
