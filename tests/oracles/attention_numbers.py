"""What an attention backend gives for random inputs, its gradients among it: for comparison with another's."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def value_and_gradients(
    backend: Callable,
    dtype: str,
    shape: tuple[int, int, int],
    grid: tuple[int, int],
    scan: str,
    causal: jax.Array | None = None,
    num_prefix: int = 0,
) -> list[np.ndarray]:
    """[values, gradients by q, k and v] of a backend's function in `dtype`, as float32 [B, T, N, K].

    shape: B, N, K. Inputs are bfloat16's numbers in any dtype. The scale is an eighth more than 1 / sqrt(K), as beyond
    the trained grid.
    """
    B, N, K = shape
    *qkv, cotangent = np.random.default_rng(0).normal(size=(4, B, num_prefix + grid[0] * grid[1], N, K))

    @jax.jit
    def run(scale, cotangent, *qkv):
        attend = functools.partial(backend, grid=grid, scan=scan, causal=causal, scale=scale, num_prefix=num_prefix)
        out, vjp = jax.vjp(attend, *qkv)
        return out, *vjp(cotangent.astype(out.dtype))

    arrays = [jnp.asarray(a, "bfloat16").astype(dtype) for a in (cotangent, *qkv)]
    return [np.asarray(a, np.float32) for a in run(1.118 / K**0.5, *arrays)]
