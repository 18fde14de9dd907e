"""The variance of causal attention and the position probe: the theorem by simulation, and networks that must differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import flow_config, network_of, noisy_params, tiny_config

from experiments.theory.block_outputs import block_outputs, noisy_images
from experiments.theory.position_probe import (
    _named,
    chance_error,
    probe,
    probe_blocks,
    probe_figure,
    token_places,
    tokens_read,
)
from experiments.theory.variance import attended, fit_law, measure_variance, theorem_variance
from ledit_jax.errors import ConfigError
from ledit_jax.models.functional import init_params, make_apply

DRAWS = 200_000


def run_blocks(params, config, *inputs):
    """Each block's (mixed, output), compiled."""
    run = jax.jit(lambda *inputs: [(b.mixed, b.output) for b in block_outputs(params, config, *inputs)])
    return run(*inputs)


@pytest.mark.parametrize("count", [1, 2, 5, 20])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.5, 0.7)])
def test_theorem_by_simulation(count, mean, std):
    rng = np.random.default_rng(count)
    scores = np.log(rng.exponential(size=(DRAWS, count)))
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    terms = weights * rng.normal(mean, std, (DRAWS, count))
    # The terms one by one, as the theorem has it; and together, where the mean drops out.
    assert terms.var(axis=0).sum() == pytest.approx(theorem_variance(count, mean, std), rel=0.02)
    assert terms.sum(axis=1).var() == pytest.approx(2 * std**2 / (count + 1), rel=0.02)


def test_attended_tokens_are_the_scans():
    assert attended("a", 2, 3).tolist() == [1, 2, 3, 4, 5, 6]
    assert attended("b", 2, 3).tolist() == [1, 2, 3, 2, 4, 6]
    assert attended("none", 2, 2).tolist() == [4] * 4


def test_the_law_is_found_where_it_holds():
    counts = np.array([1, 2, 4, 9])
    assert fit_law(3 / (counts + 1), counts) == pytest.approx((3, 1, 1))
    assert fit_law(5 * (counts + 1.0) ** -0.5, counts)[1:] == pytest.approx((1, 0.5))


@pytest.mark.parametrize("family", ["LEDiT", "LookHere", "FiTBlock"])
def test_block_outputs_are_the_networks_own(family):
    config = tiny_config(family, model=dict(width=32, num_heads=4))
    params = noisy_params(config)
    x, t, y = noisy_images(config, 8, 12, 3, 500, seed=0)
    z = run_blocks(params, config, x, t, y)[-1][1]
    # The last block's output through the final layer is what the network returns.
    final = params["final_layer"]
    condition = jax.nn.silu(_conditioning(config, params, t, y))
    shift, scale = jnp.split(condition @ final["adaln"]["kernel"] + final["adaln"]["bias"], 2, axis=-1)
    z = (z - z.mean(-1, keepdims=True)) / jnp.sqrt(z.var(-1, keepdims=True) + config.model.norm_eps)
    z = (z * (1 + scale[:, None]) + shift[:, None]) @ final["linear"]["kernel"] + final["linear"]["bias"]
    images = z.reshape(3, 4, 6, 2, 2, 2).swapaxes(2, 3).reshape(3, 8, 12, 2)
    expected = jax.jit(make_apply(network_of(config).for_sampling(config.sample)))(params, x, t, y)
    np.testing.assert_allclose(images, expected, rtol=2e-4, atol=2e-4)


def test_images_of_a_flow_are_fed_in_its_own_times():
    config = flow_config(flow=dict(time_scale=1000.0))
    (clean, *_), (noisy, times, _) = (noisy_images(config, 8, 8, 3, timestep, seed=0) for timestep in (0, 750))
    noise = np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    np.testing.assert_allclose(noisy, 0.25 * clean + 0.75 * noise, atol=1e-6)
    np.testing.assert_allclose(times, 750)


def _conditioning(config, params, t, y):
    frequencies = np.exp(-np.log(10_000.0) * np.arange(128) / 128)
    angles = np.asarray(t)[:, None] * frequencies
    p = params["timestep_embed"]
    hidden = jax.nn.silu(np.concatenate([np.cos(angles), np.sin(angles)], -1) @ p["fc1"]["kernel"] + p["fc1"]["bias"])
    return hidden @ p["fc2"]["kernel"] + p["fc2"]["bias"] + params["label_embed"]["embedding"][y]


def test_first_token_of_a_causal_block_mixes_its_own_value_alone():
    config = tiny_config("LEDiT", model=dict(block_order="ca", scan="a"))
    params = noisy_params(config)
    first, second = (noisy_images(config, 8, 8, 2, 999, seed)[0] for seed in (0, 1))
    rest = second.at[:, :2, :2].set(first[:, :2, :2])
    _, t, y = noisy_images(config, 8, 8, 2, 999, 0)
    # Without the convolution, which looks around.
    params["conv"]["kernel"] = jnp.zeros_like(params["conv"]["kernel"]).at[1, 1].set(jnp.eye(16))
    mixed, _ = run_blocks(params, config, jnp.concatenate([first, rest]), jnp.tile(t, 2), jnp.tile(y, 2))[0]
    np.testing.assert_allclose(mixed[:2, 0], mixed[2:, 0], rtol=1e-5, atol=1e-6)
    assert np.abs(mixed[:2, 1] - mixed[2:, 1]).max() > 1e-2


def test_probe_finds_position_where_there_is_some(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(40, 16, 8))
    places = token_places(4, 4)
    assert places[5].tolist() == [1, 1] and np.mean((places - 1.5) ** 2) == chance_error(4, 4)
    known = noise.copy()
    known[..., :2] = places + 0.1 * noise[..., :2]
    assert probe(known, (4, 4), 0) < 0.2 * chance_error(4, 4) < 0.7 * probe(noise, (4, 4), 0)
    # In one dimension: the index, by the same noise.
    assert token_places(4, 4, "index")[5].tolist() == [5] and chance_error(4, 4, "index") == (16**2 - 1) / 12
    assert probe(known, (4, 4), 0, "index") < 0.2 * chance_error(4, 4, "index") < 0.7 * probe(noise, (4, 4), 0, "index")
    errors = {"known": {999: [0.1, 0.2], 0: [0.2, 0.3]}}
    probe_figure(errors, 1.25, "cell", tmp_path / "probe.png")
    assert (tmp_path / "probe.png").stat().st_size > 5_000


def test_a_probe_of_the_inside_does_not_see_what_the_border_knows():
    rng, grid = np.random.default_rng(0), (6, 6)
    noise = rng.normal(size=(80, 36, 8))
    known = noise.copy()
    known[..., :2] = token_places(*grid) + 0.1 * noise[..., :2]
    marked = np.where(tokens_read(*grid, inside=True)[:, None], noise, known)
    chance = chance_error(*grid, inside=True)
    assert chance == (4**2 - 1) / 12
    assert probe(marked, grid, 0) < 0.5 * chance_error(*grid)
    assert probe(known, grid, 0, inside=True) < 0.2 * chance < 0.9 * chance < probe(marked, grid, 0, inside=True)
    with pytest.raises(ConfigError, match="a grid of 2x4 tokens has none inside"):
        tokens_read(2, 4, inside=True)


def test_probes_along_the_denoising():
    config = tiny_config("NoPE")
    params = init_params(network_of(config), jax.random.key(0))
    errors = probe_blocks("NoPE", params, config, 8, 8, [999, 0], "index", False, 4, 0)
    assert list(errors) == [999, 0] and [len(found) for found in errors.values()] == [2, 2]
    assert errors[999] != errors[0] and all(np.isfinite(found).all() for found in errors.values())


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match="--checkpoints=a=x,a=y has a name twice"):
        _named(["a=x", "a=y"])
    nope, ledit = tiny_config("NoPE"), tiny_config("LEDiT")
    params = init_params(network_of(ledit), jax.random.key(0))
    with pytest.raises(ConfigError, match="model.block_order=sa"):
        measure_variance(init_params(network_of(nope), jax.random.key(0)), nope, 8, 8, [0], 4, 0)
    with pytest.raises(ConfigError, match="timestep=1000"):
        measure_variance(params, ledit, 8, 8, [1000], 4, 0)
    with pytest.raises(ConfigError, match="height=9"):
        measure_variance(params, ledit, 9, 8, [0], 4, 0)
    with pytest.raises(ConfigError, match="images=2"):
        probe(np.zeros((2, 4, 3)), (2, 2), 0)
