"""cuDNN attention: what it hands to cuDNN, checked on CPU; the program lowered for CUDA; the numbers where a GPU is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from oracles.attention_numbers import value_and_gradients

from ledit_jax.ops.cudnn_attention import cudnn_attention
from ledit_jax.ops.dense_attention import reference_attention
from ledit_jax.ops.scan_masks import SCANS

B, N, K = 2, 2, 72
GRIDS = [(5, 7), (4, 6)]  # 35 tokens need padding, 24 do not
HAS_GPU = jax.default_backend() == "gpu"


ONE = np.array([True, False])
CASES = [(scan, grid, causal, 0) for scan in SCANS for grid in GRIDS for causal in (None, ONE)]


@pytest.mark.parametrize("scan, grid, causal, num_prefix", [*CASES, ("b", (5, 7), ONE, 4), ("d", (4, 6), None, 4)])
def test_mask_scale_and_padding_are_right(monkeypatch, scan, grid, causal, num_prefix):
    """With jax's own dense code in cuDNN's place, which takes the same arguments."""
    real, seen = jax.nn.dot_product_attention, []

    def dense(*args, implementation, **kwargs):
        seen.append(implementation)
        return real(*args, implementation="xla", **kwargs)

    monkeypatch.setattr(jax.nn, "dot_product_attention", dense)
    causal = None if causal is None else jnp.asarray(causal)
    got = value_and_gradients(cudnn_attention, "float32", (B, N, K), grid, scan, causal, num_prefix)
    want = value_and_gradients(reference_attention, "float32", (B, N, K), grid, scan, causal, num_prefix)
    assert set(seen) == {"cudnn"}
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("grid", [*GRIDS, (24, 24), (32, 48)])
@pytest.mark.parametrize("scan", ["none", "d"])
def test_lowered_for_cuda_it_is_one_fused_kernel_each_way(monkeypatch, scan, grid):
    """jax's own checks of shapes and dtypes run; only the questions to the GPU are answered for it."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda capability: False)
    attend = functools.partial(cudnn_attention, grid=grid, scan=scan, causal=None, scale=K**-0.5)
    gradient = jax.grad(lambda *qkv: attend(*qkv).astype(jnp.float32).sum(), argnums=(0, 1, 2))
    array = jax.ShapeDtypeStruct((B, grid[0] * grid[1], N, K), jnp.bfloat16)
    program = jax.jit(gradient).trace(array, array, array).lower(lowering_platforms=("cuda",)).as_text()
    is_masked = scan == "d" or grid == (5, 7)  # whose padding has to be hidden
    kernel = "__cudnn$fmhaScaleBiasSoftmax" if is_masked else "__cudnn$fmhaSoftmax"
    assert kernel in program and f"{kernel}Backward" in program
    assert f"tensor<{B}x{N}x{grid[0] * grid[1]}x{grid[0] * grid[1]}" not in program


@pytest.mark.skipif(not HAS_GPU, reason="the numbers of cuDNN need an NVIDIA GPU, and there is none")
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("scan", SCANS)
def test_values_and_gradients_on_a_gpu(scan, grid):
    got = value_and_gradients(cudnn_attention, "bfloat16", (B, N, K), grid, scan)
    want = value_and_gradients(reference_attention, "float32", (B, N, K), grid, scan)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.08, rtol=0.03)
