"""The correlation of attention's weights with values: the network's own weights, and figures that are known."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import noisy_params, tiny_config

from experiments.theory.block_outputs import block_outputs, enter, noisy_images
from experiments.theory.correlation import correlation_figure, correlations, measure_correlation, weights_and_values

DOCS = Path(__file__).parents[2] / "docs"
FAMILIES = {
    "LEDiT": tiny_config("LEDiT", model=dict(scan="d")),
    "LookHere": tiny_config("LookHere", model=dict(width=32, num_heads=4)),
    "FiTBlock": tiny_config("FiTBlock"),
    "RoPE": tiny_config("RoPE"),
    "threshold": tiny_config("LEDiT", model=dict(block_order="ca", causal_from_timestep=500.0)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_times_values_are_what_attention_mixes(name):
    config = FAMILIES[name]
    params = noisy_params(config)
    x, t, y = noisy_images(config, 8, 12, 3, 500, seed=0)
    t = t.at[0].set(100)

    @jax.jit
    def run(x, t, y):
        outputs = [block.mixed for block in block_outputs(params, config, x, t, y)]
        return outputs, weights_and_values(enter(params, config, x, t, y))

    outputs, layers = run(x, t, y)
    for mixed, (weights, values, _) in zip(outputs, layers, strict=True):
        found = jnp.einsum("bnts,bsnk->btnk", weights, values).reshape(mixed.shape)
        np.testing.assert_allclose(found, mixed, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_pearsons_over_the_pairs_that_are_seen(causal):
    rng = np.random.default_rng(0)
    B, N, T, K = 5, 2, 6, 3
    seen = np.tril(np.ones((T, T), bool)) if causal else np.ones((T, T), bool)
    weights = rng.exponential(size=(B, N, T, T)) * seen
    weights /= weights.sum(axis=-1, keepdims=True)
    values = rng.normal(size=(B, T, N, K))
    values[..., 0] += 50 * weights.mean(axis=2).swapaxes(1, 2)  # a channel that follows the weights
    got = np.asarray(correlations(jnp.asarray(weights), jnp.asarray(values), jnp.asarray(seen[None, None])))
    _, queries, keys = np.nonzero(np.broadcast_to(seen, (B, T, T)))
    images = np.repeat(np.arange(B), seen.sum())
    for n in range(N):
        w = weights[images, n, queries, keys] * seen.sum(axis=1)[queries]
        for k in range(K):
            assert got[n, k] == pytest.approx(np.corrcoef(w, values[images, keys, n, k])[0, 1], abs=1e-5)
    assert causal or got[:, 0].min() > 0.2 > abs(got[:, 1:]).max()


def test_every_block_at_every_timestep(tmp_path):
    config = FAMILIES["LEDiT"]
    results = measure_correlation(noisy_params(config), config, 8, 8, [999, 100], 8, seed=0)
    assert [(r.layer, r.kind, r.timestep) for r in results] == [
        *((0, "sa", 999), (1, "ca", 999)),
        *((0, "sa", 100), (1, "ca", 100)),
    ]
    assert all(0 < r.mean <= r.largest <= 1 and 0 < r.other_image < 1 for r in results)
    correlation_figure(results, tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 5_000


def test_the_tables_in_docs_are_those_of_the_results_beside_them():
    page, folder = (DOCS / "positions.md").read_text(), DOCS / "positions"
    layers = json.loads((folder / "correlation.json").read_text())["layers"]
    for timestep in (999, 500, 100):
        cells = [f"{r['mean']:.2f} ({r['other_image']:.2f})" for r in layers if r["timestep"] == timestep]
        assert f"| timestep {timestep} | {' | '.join(cells)} |" in page
    probes = json.loads((folder / "position-probe-steps.json").read_text())
    for place in ("cell", "index"):
        for timestep, errors in probes[place]["errors"].items():
            assert f"| {timestep} | {' | '.join(f'{error:.2f}' for error in errors)} |" in page
