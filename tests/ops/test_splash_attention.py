"""Splash attention: interpreted on CPU against the reference, compiled for a TPU ahead of time, split over a mesh."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as splash_mask_info

from ledit_jax.ops import splash_attention
from ledit_jax.ops.dense_attention import reference_attention
from ledit_jax.ops.scan_masks import SCANS, scan_mask, visible_blocks

B, N, K = 2, 2, 8
CAUSAL = np.array([True, False])
TOLERANCE = {"float32": dict(atol=2e-5, rtol=2e-4), "bfloat16": dict(atol=0.08, rtol=0.03)}


def inputs(grid, dtype, size=1.5):
    noise = np.random.default_rng(0).normal(size=(4, B, grid[0] * grid[1], N, K))
    return [jnp.asarray(size * a, dtype) for a in noise]


def check_against_reference(grid, scan, dtype="float32", causal=None, scale=1.118 / K**0.5):
    *qkv, cotangent = inputs(grid, dtype)
    kwargs = dict(grid=grid, scan=scan, causal=None if causal is None else jnp.asarray(causal))

    def both(backend, arrays, **more):
        out, vjp = jax.vjp(jax.jit(lambda *a: backend(*a, **kwargs, **more)), *arrays)
        return out, *vjp(cotangent.astype(out.dtype))

    got = both(lambda q, k, v, **kw: splash_attention.splash_attention(q, k, v, interpret=True, **kw), qkv, scale=scale)
    # The oracle gets the rounded inputs and no other rounding.
    want = both(reference_attention, [a.astype(jnp.float32) for a in qkv], scale=scale)
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
    monkeypatch.setattr(splash_attention, "_MAX_BLOCK", 128)


@pytest.mark.parametrize("grid", [(12, 13), (19, 16), (16, 17)], ids=["fused backward", "separate", "w a power of 2"])
@pytest.mark.parametrize("scan", ["a", "b", "c", "d"])
def test_several_blocks(small_blocks, scan, grid):
    blocks = visible_blocks(scan, *grid, 128)
    assert blocks.shape == (-(-grid[0] * grid[1] // 128),) * 2
    check_against_reference(grid, scan)
