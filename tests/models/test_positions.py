"""The baselines' positions against independent readings: PyTorch's interpolate, loops in float64, the formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F

from ledit_jax.errors import ConfigError
from ledit_jax.models.dynamic_rotary import (
    dynamic_frequencies,
    dynamic_tables,
    noise_share,
    ordered_positions,
    ordered_tables,
    spaced_tables,
)
from ledit_jax.models.lookhere import layer_slopes, lookhere_bias
from ledit_jax.models.rotary import axis_frequencies, rotary_tables, rotate
from ledit_jax.models.tables import resize_table


@pytest.mark.parametrize("grid", [(4, 6), (8, 12), (9, 5), (3, 6)])
def test_a_learned_table_is_resized_as_pytorch_does(grid):
    table = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    want = F.interpolate(torch.from_numpy(table).permute(2, 0, 1)[None], grid, mode="bicubic", align_corners=False)
    np.testing.assert_allclose(resize_table(jnp.asarray(table), grid), want[0].permute(1, 2, 0), atol=1e-5)


def frequencies_by_hand(dim, size, trained, method):
    """One pair at a time, from the formulas."""
    s = max(1.0, size / trained)
    plain = [10_000.0 ** (-2 * i / dim) for i in range(dim // 2)]
    if method == "ntk":
        return [(10_000.0 * s ** (dim / (dim - 2))) ** (-2 * i / dim) for i in range(dim // 2)]
    if method == "riflex" and s > 1:
        k = min(range(dim // 2), key=lambda i: abs(2 * math.pi / plain[i] - trained))
        return [0.9 * 2 * math.pi / size if i == k else f for i, f in enumerate(plain)]
    if method == "yarn":

        def index(turns):
            return dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(10_000.0))

        low, high = max(math.floor(index(32)), 0), min(math.ceil(index(1)), dim - 1)
        share = [min(max((i - low) / max(high - low, 1e-3), 0.0), 1.0) for i in range(dim // 2)]
        return [f / s * r + f * (1 - r) for f, r in zip(plain, share, strict=True)]
    return plain


@pytest.mark.parametrize("method", ["plain", "ntk", "yarn", "riflex"])
@pytest.mark.parametrize("size", [8, 16, 24, 32, 64])
def test_frequencies_are_those_of_the_formulas(method, size):
    got = axis_frequencies(36, size, 16, method)
    np.testing.assert_allclose(got, frequencies_by_hand(36, size, 16, method), rtol=1e-12)
    if size <= 16:
        np.testing.assert_array_equal(got, axis_frequencies(36, size, 16, "plain"))
    elif method != "plain":
        assert (got != axis_frequencies(36, size, 16, "plain")).any()


def test_what_each_method_is_for():
    """At twice the size: NTK keeps the fastest pair and divides the slowest by 2; RIFLEx changes exactly one pair."""
    plain = axis_frequencies(36, 32, 16, "plain")
    np.testing.assert_allclose(axis_frequencies(36, 32, 16, "ntk")[[0, -1]], plain[[0, -1]] / [1, 2])
    np.testing.assert_allclose(axis_frequencies(36, 32, 16, "yarn")[-1], plain[-1] / 2)
    assert np.sum(axis_frequencies(36, 32, 16, "riflex") != plain) == 1


def dynamic_by_hand(dim, size, trained, method, t):
    """DyPE's frequencies, one pair at a time, from its formulas and the bounds of its code."""
    s = max(1.0, size / trained)
    plain = [10_000.0 ** (-2 * i / dim) for i in range(dim // 2)]
    if method == "ntk":
        base = 10_000.0 * max(1.0, (s ** (dim / (dim - 2))) ** (2 * t**2))
        return [base ** (-2 * i / dim) for i in range(dim // 2)]
    ntk = frequencies_by_hand(dim, size, trained, "ntk")

    def kept(fast, slow):
        index = [dim * math.log(trained / (n * t**2 * 2 * math.pi)) / (2 * math.log(10_000.0)) for n in (fast, slow)]
        low, high = max(math.floor(index[0]), 0), min(math.ceil(index[1]), dim // 2)
        return [1 - min(max((i - low) / max(high - low, 1e-3), 0.0), 1.0) for i in range(dim // 2)]

    mixed = [f / s * (1 - k) + n * k for f, n, k in zip(plain, ntk, kept(1.25, 0.75), strict=True)]
    return [m * (1 - k) + f * k for m, f, k in zip(mixed, plain, kept(16, 2), strict=True)]


@pytest.mark.parametrize("method", ["ntk", "yarn"])
def test_dynamic_frequencies_are_those_of_the_formulas(method):
    times = np.float32([1.0, 0.8, 0.5, 0.1])
    for dim, size, trained in ((36, 32, 16), (56, 256, 64), (16, 24, 8)):
        got = dynamic_frequencies(dim, size, trained, method, jnp.asarray(times))
        want = [dynamic_by_hand(dim, size, trained, method, float(t)) for t in times]
        np.testing.assert_allclose(got, want, rtol=2e-5)
        plain = axis_frequencies(dim, size, trained, "plain")
        np.testing.assert_allclose(dynamic_frequencies(dim, size, trained, method, jnp.zeros(1))[0], plain, rtol=1e-6)
        speed = np.asarray(got).sum(axis=1)  # the noisier, the slower
        assert (np.diff(speed) >= 0).all() and speed[-1] > speed[0]
    same = dynamic_frequencies(36, 16, 16, method, jnp.ones(1))[0]
    np.testing.assert_array_equal(same, np.float32(axis_frequencies(36, 16, 16, "plain")))


def test_dynamic_tables_turn_each_sample_by_its_own_time():
    grid, trained, x = (3, 5), (3, 2), np.random.default_rng(0).normal(size=(2, 15, 2, 16)).astype(np.float32)
    share = noise_share(jnp.array([900, 0]), clean=0.0, noise=1000.0)  # as a diffusion's networks are fed
    np.testing.assert_allclose(noise_share(jnp.array([0.25]), 1.0, 0.0), [0.75])  # SiT's times run the other way
    got = rotate(jnp.asarray(x), *dynamic_tables(grid, trained, 16, "yarn", share))
    by_axis = np.repeat([1.0, 0.1 * math.log(2.5) + 1], 8)
    plain = [frequencies_by_hand(8, n, m, "plain") for n, m in zip(grid, trained, strict=True)]
    noisy = [plain[0], dynamic_by_hand(8, 5, 2, "yarn", 0.9)]
    for sample, frequencies in enumerate((noisy, plain)):
        want = by_axis * rotate_by_hand(x[sample : sample + 1], grid, frequencies)
        np.testing.assert_allclose(got[sample], want[0], atol=1e-5)


def test_positions_that_training_draws_keep_their_order():
    drawn = np.asarray(ordered_positions(jax.random.key(0), 4000, 3, 6))
    assert (np.diff(drawn, axis=1) > 0).all() and drawn.min() == 0 and drawn.max() == 5
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == math.comb(6, 3) and scipy.stats.chisquare(counts).pvalue > 1e-3
    # The tables are those of the drawn places: rows and columns, and samples, by themselves.
    cos, sin = ordered_tables(jax.random.key(1), 8, (3, 4), (6, 5), 8)
    turns = np.angle(np.asarray(cos) + 1j * np.asarray(sin)).reshape(8, 3, 4, 8)
    rows, columns = turns[..., 0, 0] % (2 * np.pi), turns[:, 0, :, 4] % (2 * np.pi)  # of the fastest pairs, of 1
    for places, longest in ((rows, 6), (columns, 5)):
        np.testing.assert_allclose(places, np.round(places), atol=1e-4)
        assert (np.diff(places, axis=1) > 0).all() and places.max() < longest and (places[0] != places[1:]).any()
    # At sampling the range is spread over the grid: on the whole range it is plain counting.
    np.testing.assert_allclose(spaced_tables((6, 8), (6, 8), 8), rotary_tables((6, 8), (3, 4), 8), atol=1e-6)
    np.testing.assert_allclose(spaced_tables((1, 3), (6, 7), 8)[0][:, 4], np.cos([0, 3, 6]), atol=1e-6)


def rotate_by_hand(x, grid, frequencies):
    """Complex numbers, a token and a pair at a time."""
    out = np.array(x, np.float64)
    quarter = x.shape[-1] // 4
    for token in range(grid[0] * grid[1]):
        position = divmod(token, grid[1])
        for axis in (0, 1):
            for i in range(quarter):
                a = 2 * (axis * quarter + i)
                turned = (x[:, token, :, a] + 1j * x[:, token, :, a + 1]) * np.exp(
                    1j * position[axis] * frequencies[axis][i]
                )
                out[:, token, :, a], out[:, token, :, a + 1] = turned.real, turned.imag
    return out


@pytest.mark.parametrize("method, magnitude", [("plain", 1.0), ("ntk", 1.0), ("yarn", 0.1 * math.log(2.5) + 1)])
def test_rotation(method, magnitude):
    grid, trained = (3, 5), (3, 2)
    x = np.random.default_rng(0).normal(size=(2, 15, 2, 8)).astype(np.float32)
    frequencies = [frequencies_by_hand(4, n, m, method) for n, m in zip(grid, trained, strict=True)]
    got = rotate(jnp.asarray(x), *rotary_tables(grid, trained, 8, method))
    np.testing.assert_allclose(got, magnitude * rotate_by_hand(x, grid, frequencies), atol=1e-5)


def test_rotated_products_depend_on_the_distance_alone():
    q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 8)).astype(np.float32)
    cos, sin = rotary_tables((6, 6), (6, 6), 8)
    q, k = (np.asarray(rotate(jnp.broadcast_to(a, (1, 36, 1, 8)), cos, sin))[0, :, 0] for a in (q, k))
    products = (q @ k.T).reshape(6, 6, 6, 6)
    np.testing.assert_allclose(products[1, 2, 3, 3], products[2, 3, 4, 4], atol=1e-5)
    assert abs(products[1, 2, 3, 3] - products[1, 2, 3, 4]) > 1e-3


def test_lookhere_by_hand():
    height, width, heads = 3, 4, 6
    bias = lookhere_bias(height, width, heads)
    assert bias.shape == (6, 12, 12)
    slopes = [0.5] * 4 + [0.25, 0.0625]
    for query in range(12):
        for key in range(12):
            (r, c), (kr, kc) = divmod(query, width), divmod(key, width)
            seen = [kr <= r, kr >= r, kc <= c, kc >= c, True, True]
            for head in range(heads):
                want = -slopes[head] * math.dist((r, c), (kr, kc)) if seen[head] else -1e30
                assert bias[head, query, key] == pytest.approx(want)
    assert [len(np.unique(lookhere_bias(1, 2, n)[:, 0, 1])) for n in (12, 16)] == [6, 6]
    np.testing.assert_allclose(layer_slopes(5), [1.5, 1.25, 1.0, 0.75, 0.5])
    with pytest.raises(ConfigError, match="too few for model.position=lookhere: use 4 or more"):
        lookhere_bias(2, 2, 3)
