"""Splash attention: interpreted on CPU against the reference, compiled for a TPU ahead of time, split over a mesh."""

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
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ledit_jax.compile_only.topology import describe_devices, has_tpu_compiler, parse_topology
from ledit_jax.config import MeshConfig
from ledit_jax.ops import splash_attention as splash
from ledit_jax.ops.attention import attention
from ledit_jax.ops.dense_attention import reference_attention
from ledit_jax.ops.scan_masks import SCANS, scan_mask, visible_blocks
from ledit_jax.parallel.mesh import make_mesh

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


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("scan", SCANS)
def test_values_and_gradients(scan, dtype):
    check_against_reference((5, 7), scan, dtype)


@pytest.fixture
def small_blocks(monkeypatch):
    """The smallest blocks that the kernel has, so that a short sequence needs several."""
    monkeypatch.setattr(splash, "_MAX_BLOCK", 128)


@pytest.mark.parametrize("grid", [(12, 13), (19, 16)], ids=["fused backward", "separate dq"])
@pytest.mark.parametrize("scan", ["a", "b", "c", "d", "none"])
def test_several_blocks_and_blocks_that_are_skipped(small_blocks, scan, grid):
    num_blocks = -(-grid[0] * grid[1] // 128)
    assert splash.block_size(grid[0] * grid[1]) == (128, 128 * num_blocks)
    assert num_blocks == {12: 2, 19: 3}[grid[0]]
    if scan in "ab":
        assert not visible_blocks(scan, *grid, 128).all()
    check_against_reference(grid, scan)


@pytest.mark.parametrize("scan", ["a", "b", "d"])
def test_the_scan_applies_to_the_samples_asked_for(small_blocks, scan):
    check_against_reference((12, 13), scan, causal=jnp.array([True, False]))


@pytest.mark.parametrize(
    "scan, grid, num_prefix, causal",
    [("a", (18, 16), 77, None), ("b", (5, 7), 6, None), ("d", (12, 13), 130, [True, False]), ("none", (5, 7), 6, None)],
)
def test_a_prefix_that_all_see_and_that_sees_all(small_blocks, scan, grid, num_prefix, causal):
    if num_prefix == 77:  # the scan still hides blocks of the image
        assert not visible_blocks(scan, *grid, 128, num_prefix).all()
    check_against_reference(grid, scan, causal=causal and jnp.array(causal), num_prefix=num_prefix)


@pytest.mark.parametrize("grid", [(24, 24), (28, 28), (32, 48)], ids=str)
def test_lengths_of_real_images_that_few_blocks_divide(grid):
    """384x384, 448x448 and 512x768 pixels, in the blocks that the kernel takes for them."""
    check_against_reference(grid, "d")


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


@pytest.mark.parametrize("width", [1, 3, 24, 28, 64, 96, 181])
def test_cells_of_keys_without_division(width):
    keys = np.arange(width * width)
    row, col = splash._key_cell(jnp.asarray(keys, jnp.int32), width)
    np.testing.assert_array_equal(row, keys // width)
    np.testing.assert_array_equal(col, keys % width)


def test_block_sizes_waste_little():
    assert splash.block_size(256) == (256, 256)
    assert splash.block_size(24 * 24) == (640, 640)
    assert splash.block_size(28 * 28) == (896, 896)
    assert splash.block_size(1536) == (768, 1536)
    assert splash.block_size(16384) == (1024, 16384)


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


@pytest.mark.skipif(not has_tpu_compiler(), reason="there is no libtpu for this platform")
class TestCompiledForTPU:
    def compile(self, topology, mesh_config, backend, dtype="bfloat16", spec=None):
        mesh = make_mesh(mesh_config, describe_devices(parse_topology(topology)))
        array = jax.ShapeDtypeStruct((4, 576, 4, 72), dtype, sharding=NamedSharding(mesh, spec or P()))

        def loss(q, k, v):
            return attention(q, k, v, grid=(24, 24), scan="d", backend=backend).astype(jnp.float32).sum()

        # As the training and the sampling programs have it.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(array, array, array).compile()

    def test_auto_puts_the_kernel_into_the_program(self):
        program = self.compile("v5e:1x1", MeshConfig(), "auto", "float32").as_text()
        for kernel in ("splash_mha_fwd", "splash_mha_dkv"):
            assert kernel in program
        assert "576,576" not in program and "640,640" not in program  # no logits, no mask

    def test_dense_attention_has_no_kernel_and_all_logits(self):
        program = self.compile("v5e:1x1", MeshConfig(), "xla").as_text()
        assert "splash_mha" not in program and "576,576" in program

    def test_a_mesh_splits_the_kernel_and_gathers_nothing(self):
        spec = P(("data", "fsdp"), None, "tensor")
        program = self.compile("v5e:2x2", MeshConfig(data=2, tensor=2), "splash", spec=spec).as_text()
        assert "splash_mha_fwd" in program
        assert not any(name in program for name in ("all-gather", "all-to-all", "collective-permute"))
