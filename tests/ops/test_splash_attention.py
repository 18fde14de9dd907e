"""Splash attention: interpreted on CPU against the reference, and split over a mesh."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as mask_info

from ledit_jax.ops import fast_memory, token_order
from ledit_jax.ops import splash_attention as splash
from ledit_jax.ops.dense_attention import reference_attention
from ledit_jax.ops.fast_memory import is_short
from ledit_jax.ops.scan_masks import SCANS, scan_mask, visible_blocks, visible_tiles

B, N, K = 2, 2, 8
SCALE = 1.118 / K**0.5  # with attention scaling
TOLERANCE = {"float32": dict(atol=2e-5, rtol=2e-4), "bfloat16": dict(atol=0.08, rtol=0.03)}


def inputs(grid, dtype="float32", size=1.5, num_prefix=0):
    noise = np.random.default_rng(0).normal(size=(4, B, num_prefix + grid[0] * grid[1], N, K))
    return [jnp.asarray(size * a, dtype) for a in noise]


def value_and_gradients(backend, arrays, cotangent, scale=SCALE, **kwargs):
    @jax.jit
    def run(scale, cotangent, *qkv):
        out, vjp = jax.vjp(lambda *a: backend(*a, scale=scale, **kwargs), *qkv)
        return out, *vjp(cotangent.astype(out.dtype))

    return run(scale, cotangent, *arrays)  # the scale is traced, as the pipeline's is


def interpreted(*args, **kwargs):
    return splash.splash_attention(*args, interpret=True, **kwargs)


def check_against_reference(grid, scan, dtype="float32", causal=None, num_prefix=0):
    *qkv, cotangent = inputs(grid, dtype, num_prefix=num_prefix)
    kwargs = dict(grid=grid, scan=scan, causal=causal, num_prefix=num_prefix)
    got = value_and_gradients(interpreted, qkv, cotangent, **kwargs)
    # The oracle gets the rounded inputs and no other rounding.
    wide = [a.astype(jnp.float32) for a in qkv]
    want = value_and_gradients(reference_attention, wide, cotangent, **kwargs)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, **TOLERANCE[dtype])


@pytest.mark.parametrize("scan", SCANS)
def test_values_and_gradients(scan):
    check_against_reference((5, 7), scan, "bfloat16" if scan in ("b", "d", "none") else "float32")


@pytest.fixture
def small_blocks(monkeypatch):
    """The smallest blocks that splash attention has, so that a short sequence needs several, and no other kernel."""
    monkeypatch.setattr(splash, "is_short", lambda *args: False)
    monkeypatch.setattr(token_order, "MAX_BLOCK", 128)
    monkeypatch.setattr(splash, "choose_order", token_order.choose_order.__wrapped__)  # without its cache


ROWS = "fused-none-12-13 fused-a-12-13 a-19-16 c-19-16 d-19-16"


@pytest.mark.parametrize("case", ROWS.split())
def test_several_blocks_and_blocks_that_are_skipped(small_blocks, case):
    *fused, scan, height, width = case.split("-")
    grid = int(height), int(width)
    order = splash.choose_order(scan, grid)
    assert order.tile == grid and len(order.visible) == (2 if fused else 3)
    assert order.visible.all() == (scan in ("d", "none"))
    check_against_reference(grid, scan)


TILES = {("b", (16, 32), 0): (8, 16), ("d", (16, 32), 5): (8, 16), ("d_inclusive", (32, 24), 0): (16, 8)}


@pytest.mark.parametrize("scan, grid, num_prefix", TILES)
def test_tiles_of_the_grid(small_blocks, scan, grid, num_prefix):
    order = splash.choose_order(scan, grid, num_prefix)
    assert order.tile == TILES[scan, grid, num_prefix]
    assert order.visible.mean() < visible_blocks(scan, *grid, 128, num_prefix).mean()
    check_against_reference(grid, scan, num_prefix=num_prefix)


@pytest.mark.parametrize("scan", SCANS)
def test_some_queries_of_a_short_sequence_after_others(monkeypatch, scan):
    monkeypatch.setattr(fast_memory, "_LOGITS", 1)
    check_against_reference((12, 11), scan, causal=jnp.array([scan == "a", True]), num_prefix=3)


@pytest.mark.parametrize("grid", [(12, 13), (5, 7)], ids=["blocks", "short"])
def test_the_scan_applies_to_the_samples_asked_for(request, grid):
    if grid == (12, 13):
        request.getfixturevalue("small_blocks")
    check_against_reference(grid, "d", causal=jnp.array([True, False]), num_prefix=3)


@pytest.mark.parametrize(
    "scan, grid, num_prefix, causal",
    [("a", (18, 16), 77, None), ("b", (5, 7), 6, None), ("d", (12, 13), 130, [True, False])],
)
def test_a_prefix_that_all_see_and_that_sees_all(small_blocks, scan, grid, num_prefix, causal):
    if num_prefix == 77:  # the scan still hides blocks of the image
        assert not splash.choose_order(scan, grid, num_prefix).visible.all()
    check_against_reference(grid, scan, causal=causal and jnp.array(causal), num_prefix=num_prefix)


def test_a_length_that_no_block_divides():
    """448x448 pixels."""
    check_against_reference((28, 28), "d")


def test_huge_logits_stay_finite():
    *qkv, cotangent = inputs((5, 7), size=1e3)
    for result in value_and_gradients(interpreted, qkv, cotangent, grid=(5, 7), scan="b", causal=None):
        assert jnp.isfinite(result).all()


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("grid, num_suffix", [((16, 16), 0), ((19, 16), 0), ((24, 24), 0), ((18, 16), 77)])
def test_blocks_are_those_that_splash_attention_finds_in_the_dense_mask(scan, grid, num_suffix):
    num_image = grid[0] * grid[1]
    T = num_image + num_suffix
    padded = -(-T // 128) * 128
    dense = np.zeros((padded, padded), bool)
    dense[:T, :T] = True
    dense[:num_image, :num_image] = scan_mask(scan, *grid)
    visible = visible_blocks(scan, *grid, 128, num_suffix)
    dense = masks.MultiHeadMask([masks.NumpyMask(dense)])
    for by_key in (False, True):
        process = mask_info.process_mask_dkv if by_key else mask_info.process_mask
        theirs, _ = process(dense, (128, 128), shrink_grid=False)
        fetch = splash._next_visible(visible.T).T if by_key else splash._next_visible(visible)
        np.testing.assert_array_equal(visible, theirs.block_mask[0] > 0)
        np.testing.assert_array_equal(fetch, theirs.data_next[0])


@pytest.mark.parametrize("scan", SCANS)
def test_tiles_are_blocks_of_the_dense_mask_in_their_order(scan):
    for grid, tile in [((8, 12), (4, 3)), ((6, 8), (3, 8)), ((4, 6), (1, 2)), ((5, 3), (5, 3)), ((4, 4), (1, 1))]:
        cells = np.arange(grid[0] * grid[1])
        row, col = token_order.key_cell(cells, grid, tile)
        order = row * grid[1] + col
        np.testing.assert_array_equal(np.sort(order), cells)
        size = tile[0] * tile[1]
        dense = scan_mask(scan, *grid)[order][:, order].reshape(len(cells) // size, size, -1, size)
        np.testing.assert_array_equal(visible_tiles(scan, *grid, tile), dense.any(axis=(1, 3)))


@pytest.mark.parametrize("grid, tile", [((96, 96), (32, 24)), ((181, 181), (181, 181))])
def test_tokens_are_where_their_cells_say(grid, tile):
    order = token_order.Order(grid, tile, block=1, padded=5 + grid[0] * grid[1], visible=np.ones((1, 1), bool))
    tokens = jnp.arange(3 + grid[0] * grid[1], dtype=jnp.float32)[None, :, None, None]
    there = token_order.to_kernel(tokens, order, 3)
    row, col = token_order.key_cell(jnp.arange(grid[0] * grid[1]), grid, tile)
    np.testing.assert_array_equal(there.ravel()[:-5], 3 + row * grid[1] + col)
    np.testing.assert_array_equal(there.ravel()[-5:], [0, 1, 2, 0, 0])
    np.testing.assert_array_equal(token_order.from_kernel(there, order, 3), tokens)


def test_tiles_are_taken_where_they_cost_less():
    for grid, num_suffix, tile, hidden in [
        ((16, 16), 0, (16, 16), 0),
        ((32, 32), 77, (32, 32), 0),
        ((64, 64), 0, (32, 32), 1 / 16),
        ((64, 64), 77, (16, 16), 36 / 17**2),
    ]:
        order = token_order.choose_order("d", grid, num_suffix)
        assert order.tile == tile and 1 - order.visible.mean() == pytest.approx(hidden)
        assert token_order.choose_order("none", grid, num_suffix).tile == grid


def test_sequences_that_one_kernel_holds_whole():
    bf16, f32 = jnp.dtype("bfloat16"), jnp.dtype("float32")
    assert is_short(1024, 16, 72, bf16) and is_short(333, 24, 32, bf16) and is_short(484, 16, 72, f32)
    assert not is_short(1024, 16, 72, f32) and not is_short(1156, 16, 72, bf16)


def test_block_sizes_waste_little():
    assert token_order.block_size(256) == (256, 256)
    assert token_order.block_size(24 * 24) == (640, 640)
    assert token_order.block_size(28 * 28) == (896, 896)
    assert token_order.block_size(1536) == (768, 1536)
    assert token_order.block_size(16384) == (1024, 16384)


FOUR_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from test_splash_attention import inputs, interpreted, value_and_gradients
*qkv, cotangent = inputs((5, 7))
kwargs = dict(grid=(5, 7), scan="c", causal=jnp.array([True, False]))
want = value_and_gradients(interpreted, qkv, cotangent, **kwargs)
mesh = jax.make_mesh((2, 1, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    spread = jax.device_put((*qkv, cotangent), jax.NamedSharding(mesh, P(("data", "fsdp"), None, "tensor")))
    got = value_and_gradients(interpreted, spread[:3], spread[3], **kwargs)
for a, b in zip(got, want, strict=True):
    assert a.sharding.shard_shape(a.shape) == (1, 35, 1, 8), a.sharding
    np.testing.assert_allclose(a, b, atol=1e-5)
"""


def test_each_device_takes_its_share_of_batch_and_heads():
    tests = Path(__file__).parents[1]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests, Path(__file__).parent))),
    }
    subprocess.run([sys.executable, "-c", FOUR_DEVICES], env=environment, check=True, timeout=300)
