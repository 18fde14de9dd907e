"""The model against a plain PyTorch one with the same random weights: outputs, and gradients of every parameter."""

import functools
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

SMALL = dict(depth=4, width=32, num_heads=4, num_classes=10)
# Compiles twice as fast, which is most of these tests' time.
QUICK = {"xla_backend_optimization_level": 0}
T, Y = jnp.array([0, 499, 500, 999]), jnp.array([0, 3, 9, 10])

FAMILIES = {
    "LEDiT": model_preset("LEDiT-S/2", **SMALL),
    "DiT": model_preset("DiT-S/2", **SMALL),
    "NoPE": model_preset("NoPE-S/2", **SMALL),
}
# Every block order, scan, and option of the convolution occurs at least once.
SETTINGS = [
    dict(block_order="sa_ca", scan="a", post_norm=True),
    dict(block_order="ca_sa", scan="b", conv="depthwise"),
    dict(block_order="sa_then_ca", scan="c", causal_from_timestep=500),
    dict(block_order="ca_then_sa", scan="d_inclusive", patch_size=4),
    dict(block_order="ca", scan="d", conv="none", depth=3),
    dict(block_order="single_ca", scan="d", depth=3, mlp_ratio=2.0),
    dict(block_order="sa_ca", scan="none", position="sincos"),
    dict(block_order="sa", norm_eps=0.1, timestep_max_period=1_000.0, timestep_frequency_shift=1.0),
]
CONFIGS = list(FAMILIES.values()) + [ModelConfig(**(SMALL | setting)) for setting in SETTINGS]
NAMES = list(FAMILIES) + ["-".join(map(str, setting.values())) for setting in SETTINGS]


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def relative_error(got, want):
    return np.abs(np.asarray(got) - np.asarray(want)).max() / np.abs(np.asarray(want)).max()


def torch_forward(peer, x, **kwargs):
    """The oracle on NHWC arrays."""
    x, t, y = (torch.tensor(np.asarray(a)) for a in (x, T, Y))
    out = peer(x.permute(0, 3, 1, 2), t, y, **kwargs)
    return out.permute(0, 2, 3, 1)


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_forward(config):
    peer = torch_dit.torch_peer(config)
    graphdef, params = nnx.split(ledit_params.ledit_peer(peer, config))
    x = noise(4, 8, 16, 4)
    with torch.no_grad():
        want = torch_forward(peer, x)
    got = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x, T, Y), compiler_options=QUICK)(params, x)
    assert got.shape == (4, 8, 16, 8)
    assert relative_error(got, want) < 1e-4


@pytest.mark.parametrize(
    ("config", "dilation"),
    [
        (FAMILIES["LEDiT"], 1),
        (ModelConfig(**SMALL, block_order="ca_then_sa", scan="c", post_norm=True, causal_from_timestep=500), 2),
    ],
    ids=["LEDiT", "refined"],
)
def test_gradients_of_every_parameter(config, dilation):
    peer = torch_dit.torch_peer(config)
    graphdef, params = nnx.split(ledit_params.ledit_peer(peer, config), nnx.Param)
    x, target = noise(4, 8, 12, 4), noise(4, 8, 12, 8, seed=1)

    loss = ((torch_forward(peer, x, dilation=dilation) - torch.tensor(np.asarray(target))) ** 2).mean()
    loss.backward()
    want = ledit_params.to_ledit_tree({n: p.grad for n, p in peer.named_parameters() if p.requires_grad}, params)

    def our_loss(params):
        return ((nnx.merge(graphdef, params)(x, T, Y, dilation=dilation) - target) ** 2).mean()

    value, grads = jax.jit(jax.value_and_grad(our_loss), compiler_options=QUICK)(params)
    assert abs(value - loss.item()) < 1e-5 * loss.item()
    flat = zip(jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(want), strict=True)
    errors = {jax.tree_util.keystr(path): relative_error(got, expected) for (path, got), expected in flat}
    assert max(errors.values()) < 2e-4, errors


@pytest.mark.parametrize("conv", ["dense", "depthwise"])
def test_one_set_of_weights_at_two_grids_dilations_and_scales(conv):
    config = ModelConfig(**SMALL, conv=conv, block_order="ca")
    peer = torch_dit.torch_peer(config)
    params = nnx.state(ledit_params.ledit_peer(peer, config))
    outputs = {}
    for size, dilation, trained in [((8, 12), 1, None), ((8, 12), 2, None), ((8, 12), 1, (2, 3)), ((12, 6), 2, (3, 4))]:
        build = functools.partial(build_ledit, config, 4, grid=trained or (16, 16), scaled=trained is not None)
        graphdef = nnx.graphdef(nnx.eval_shape(lambda build=build: build(nnx.Rngs(0))))
        forward = jax.jit(
            lambda params, x, graphdef=graphdef, dilation=dilation: nnx.merge(graphdef, params)(x, T, Y, dilation),
            compiler_options=QUICK,
        )
        x = noise(4, *size, 4)
        scale = 1.0 if trained is None else math.sqrt(math.log(size[0] * size[1] / 4) / math.log(math.prod(trained)))
        with torch.no_grad():
            want = torch_forward(peer, x, dilation=dilation, logit_scale=scale)
        outputs[size, dilation, trained] = forward(params, x)
        assert relative_error(outputs[size, dilation, trained], want) < 1e-4
    base = outputs[(8, 12), 1, None]
    assert relative_error(outputs[(8, 12), 2, None], base) > 1e-2
    assert relative_error(outputs[(8, 12), 1, (2, 3)], base) > 1e-2


def test_the_oracle_s_fused_attention_agrees_with_its_einsum():
    config = FAMILIES["LEDiT"]
    x = noise(4, 8, 12, 4)
    with torch.no_grad():
        want = torch_forward(torch_dit.torch_peer(config), x)
        got = torch_forward(torch_dit.torch_peer(config, fused=True), x)
    assert relative_error(got, want) < 1e-5
