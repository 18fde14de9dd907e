"""The baselines' networks: each block by hand in float64 NumPy, and what their positions do at other sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import network_of

from ledit_jax.config import Config, DataConfig, model_preset
from ledit_jax.diffusion import make_process
from ledit_jax.errors import ConfigError
from ledit_jax.models.attention import AttentionContext
from ledit_jax.models.block import Block
from ledit_jax.models.functional import abstract_params, count_params, init_params, make_apply
from ledit_jax.models.lookhere import layer_slopes, lookhere_bias
from ledit_jax.models.positions import Rotary
from ledit_jax.models.rotary import rotary_tables
from ledit_jax.training.state import init_state
from ledit_jax.training.step import make_train_step

GRID = (3, 5)
SMALL = dict(depth=2, width=32, num_heads=4, num_classes=10)
FAMILIES = ("Learnable", "RoPE", "LookHere", "FiTBlock")


def small(family, **fields):
    """A model of pixels trained at 8x8 with patch 2: a 4x4 token grid."""
    data = DataConfig(image_height=8, image_width=8, image_channels=1)
    train = dataclasses.replace(Config().train, dilation_probability=0.1 if family == "LEDiT" else 0.0)
    return Config(model=model_preset(f"{family}-S/2", **(SMALL | fields)), data=data, train=train)


def noisy_params(config, seed=0):
    """Initial parameters with noise on top, so that no zero hides an error."""
    rng = np.random.default_rng(seed)
    params = init_params(network_of(config), jax.random.key(0))
    return jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), params)


def standardise(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def linear(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def turn(x, cos, sin):
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos[:, 0::2] - x[..., 1::2] * sin[:, 0::2]
    out[..., 1::2] = x[..., 1::2] * cos[:, 1::2] + x[..., 0::2] * sin[:, 1::2]
    return out


def block_by_hand(p, x, condition, position, is_fit, slope, shared):
    """One block in float64; x [T, D], condition [D]."""
    if is_fit:
        modulation = linear(p["adaln"]["up"], linear(p["adaln"]["down"], condition)) + shared
    else:
        modulation = linear(p["adaln"], condition)
    shift1, scale1, gate1, shift2, scale2, gate2 = np.split(modulation, 6)
    h = standardise(x) * (1 + scale1) + shift1
    heads = []
    bias = lookhere_bias(*GRID, 4)
    q_k_v = (np.split(a, 4, -1) for a in np.split(linear(p["attn"]["qkv"], h), 3, -1))
    for n, (q, k, v) in enumerate(zip(*q_k_v, strict=True)):
        if is_fit:
            q, k = standardise(q), standardise(k)
        if position == "rope":
            q, k = (turn(a, *rotary_tables(GRID, (4, 4), 8)) for a in (q, k))
        logits = q @ k.T / np.sqrt(8)
        if position == "lookhere":
            logits = logits + slope * bias[n].astype(np.float64)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v)
    x = x + gate1 * linear(p["attn"]["proj"], np.concatenate(heads, -1))
    h = standardise(x) * (1 + scale2) + shift2
    if is_fit:
        return x + gate2 * linear(p["mlp"]["fc2"], silu(linear(p["mlp"]["gate"], h)) * linear(p["mlp"]["fc1"], h))
    return x + gate2 * linear(p["mlp"]["fc2"], gelu(linear(p["mlp"]["fc1"], h)))


@pytest.mark.parametrize("family", ["RoPE", "LookHere", "FiTBlock"])
def test_blocks_by_hand(family):
    config = small(family)
    blocks = noisy_params(config)["blocks"]
    x, condition, shared = (
        np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(((15, 32), (32,), (192,)))
    )
    bias = lookhere_bias(*GRID, 4) if family == "LookHere" else None
    rotary = rotary_tables(GRID, (4, 4), 8) if config.model.position == "rope" else None
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Block(config.model, nnx.Rngs(0))))
    for layer, slope in enumerate(layer_slopes(2)):
        params = jax.tree.map(lambda p: p[layer], blocks)  # noqa: B023
        is_fit = family == "FiTBlock"
        got = nnx.merge(graphdef, params)(
            jnp.asarray(x, jnp.float32)[None],
            jnp.asarray(condition, jnp.float32)[None],
            AttentionContext(GRID, rotary=rotary, bias=bias),
            "none",
            jnp.asarray(slope),
            jnp.asarray(shared, jnp.float32)[None] if is_fit else None,
        )[0][0]
        wide = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
        want = block_by_hand(wide, x, condition, config.model.position, is_fit, slope, shared)
        np.testing.assert_allclose(got, want, atol=2e-4 * np.abs(want).max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scan_layers", [True, False])
def test_they_run_at_any_size_and_know_positions(family, scan_layers):
    """Swapping two patches of the image swaps the output's only where nothing knows positions."""
    config = small(family, scan_layers=scan_layers)
    apply, params = jax.jit(make_apply(network_of(config))), noisy_params(config)
    t, y = jnp.array([500]), jnp.array([3])
    x = np.random.default_rng(0).normal(size=(1, 8, 12, 1)).astype(np.float32)
    swapped = x.copy()
    swapped[:, :2, :2], swapped[:, 4:6, 8:10] = x[:, 4:6, 8:10], x[:, :2, :2]
    out, other = apply(params, x, t, y), np.array(apply(params, swapped, t, y))
    other[:, :2, :2], other[:, 4:6, 8:10] = other[:, 4:6, 8:10].copy(), other[:, :2, :2].copy()
    assert out.shape == (1, 8, 12, 2)
    assert np.abs(out - other).max() > 1e-2 * np.abs(out).max()


def test_rope_methods_change_the_output_beyond_the_training_grid_alone():
    config = small("RoPE")
    network, params = network_of(config), noisy_params(config)
    x, t, y = jax.random.normal(jax.random.key(0), (1, 16, 16, 1)), jnp.array([900]), jnp.array([1])

    def sampling(method):
        options = dataclasses.replace(config.sample, attention_scaling="off", rope_method=method)
        return network.for_sampling(options)

    plain = jax.jit(make_apply(sampling("plain")))(params, x, t, y)
    for method in ("ntk", "yarn", "riflex", "dype_ntk", "dype_yarn"):
        assert np.abs(plain - jax.jit(make_apply(sampling(method)))(params, x, t, y)).max() > 1e-6, method
        tables = zip(sampling(method).position.rotary((4, 4), t), network.position.rotary((4, 4), t), strict=True)
        assert all(np.abs(ours - trained).max() < 1e-6 for ours, trained in tables), method


def test_ordered_positions_are_drawn_in_training_alone():
    """From the step's own key, each time anew, and at sampling not at all."""
    config = small("RPE2D")
    network, params = network_of(config), noisy_params(config)
    apply, x = jax.jit(make_apply(network)), jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    told = params, x, jnp.array([9, 9]), jnp.array([1, 1])
    drawn = [apply(*told, key=jax.random.key(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and np.abs(drawn[0] - drawn[2]).max() > 1e-4
    assert isinstance(network.position.rotary((4, 4), told[2])[0], np.ndarray)  # without a key: constants
    sorts = []
    for training in (network, dataclasses.replace(network, position=Rotary((4, 4), 8))):
        step = make_train_step(training, make_process(config), config.train)
        state = jax.eval_shape(lambda network=training: init_state(network, config.train, jax.random.key(0)))
        batch = {"x": x, "condition": jnp.array([1, 2])}
        sorts.append(" sort[" in str(jax.make_jaxpr(step)(state, batch, jax.random.key(0))))
    assert sorts == [True, False]  # a step hands a key on to the one, and to the other none


def test_attention_is_sharpened_once():
    """YaRN's magnitude squared and attention scaling would be 1.143 x 1.118 at four times the tokens of 256."""
    config = small("RoPE")

    def network(method, scaling):
        options = dataclasses.replace(config.sample, rope_method=method, attention_scaling=scaling)
        return network_of(config).for_sampling(options)

    for method in ("plain", "ntk", "yarn", "riflex", "dype_ntk", "dype_yarn"):
        on, off, auto = (network(method, scaling) for scaling in ("on", "off", "auto"))
        assert on.attention_scaling and not off.attention_scaling
        assert auto == (off if "yarn" in method else on)
        position = Rotary((16, 16), 72).for_sampling(method, (0.0, 999.0))
        cos, _ = position.rotary((32, 32), jnp.array([999]))
        assert auto.position.sharpens == (cos.max() > 1)  # what the tables themselves do
    assert network_of(small("LEDiT")).for_sampling(config.sample).attention_scaling


def test_sizes_of_the_blocks():
    """SwiGLU is as large as the MLP it replaces, up to rounding, and low-rank adaLN a quarter of the full one."""
    networks = (network_of(small(family, depth=2, width=96)) for family in ("DiT", "FiTBlock"))
    dit, fit = (count_params(abstract_params(network)["blocks"]) for network in networks)
    adaln = 2 * (96 * 6 * 96 + 6 * 96), 2 * (96 * 24 + 24 + 24 * 6 * 96 + 6 * 96)
    assert fit - adaln[1] == pytest.approx(dit - adaln[0], rel=0.01)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(model=dict(position="rope", width=24, num_heads=4)), "is not a multiple of 4, which rotary positions"),
        (dict(model=dict(position="lookhere", num_heads=2)), "too few for model.position=lookhere"),
        (
            dict(model=dict(position="rpe2d"), sample=dict(rope_method="ntk")),
            "ntk does not go with model.position=rpe2d",
        ),
        (dict(sample=dict(rope_method="ntk")), "sample.rope_method=ntk needs rotary positions"),
    ],
)
def test_what_cannot_be(change, message):
    with pytest.raises(ConfigError, match=message):
        config = Config.from_dict(change)
        network_of(config).for_sampling(config.sample)
