"""Attention over a short sequence in one TPU kernel (Pallas), heads side by side as the products around it have them.

Splash attention wants its heads first, each padded to 128 lanes: up to a thousand tokens the copies there and back take
as long as attention. Here a sample's heads lie in the chip's fast memory at once, and nothing is moved outside of it.
Of the logits there are those of one head and some of its queries at a time. B batch, T tokens (a prefix, then an h x w
grid), N heads, K head dim.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from ledit_jax.ops.fast_memory import LANES, kernel_limit, queries_at_a_time, whole_lanes
from ledit_jax.ops.scan_masks import SCANS

# What hides a logit: finite, and far below any real one.
HIDDEN = -0.7 * float(np.finfo(np.float32).max)
# A query so far below and to the right of the grid sees all of it in every scan, and no key twice as far.
_FAR = 2**20


def side_by_side(
    q: Float[Array, "B T N K"], k: Float[Array, "B T N K"], v: Float[Array, "B T N K"]
) -> Float[Array, "B T F"]:
    """All heads' queries, then keys, then values; F = 3 N K.

    Where the three are parts of one array, as out of the projection, that array is what XLA hands over.
    """
    return jnp.concatenate([a.reshape(*a.shape[:2], -1) for a in (q, k, v)], axis=-1)


def short_attention(
    qkv: Float[Array, "B T F"],
    *,
    head_dim: int,
    grid: tuple[int, int],
    scan: str,
    causal: Bool[Array, " B"],
    scale: Float[Array, ""],
    num_prefix: int = 0,
    interpret: bool = False,
) -> Float[Array, "B T D"]:
    """softmax(scale * q k^T, over the keys that the scan shows) v, with no gradient for the scale.

    qkv: as `side_by_side` has them; the result too has its heads side by side, D = F / 3. causal: samples for which the
    scan applies; others see all.
    """
    T = qkv.shape[1]
    padding = -T % LANES
    cells = None
    if scan == "none" and padding:
        scan, causal = "d", jnp.zeros_like(causal)  # padding alone is hidden
    if scan != "none":
        cells = _cells(grid, num_prefix, padding)
    qkv = jnp.pad(qkv, ((0, 0), (0, padding), (0, 0)))
    return _attend(qkv, cells, causal.astype(jnp.int32), scale[None], _Shape(scan, head_dim, interpret))[:, :T]


class _Shape(NamedTuple):
    """What the kernel is compiled for."""

    scan: str
    head_dim: int
    interpret: bool


def _cells(grid: tuple[int, int], num_prefix: int, padding: int) -> tuple[Int[Array, "S 2"], Int[Array, "2 S"]]:
    """(rows and columns of the queries, those of the keys).

    A prefix sees all and is seen by all. Padding sees keys, so that no row of the softmax is empty, and nobody sees it.
    """
    image = np.indices(grid).reshape(2, -1).T

    def cells(prefix: int, behind: int):
        return np.concatenate([np.full((num_prefix, 2), prefix), image, np.full((padding, 2), behind)])

    queries, keys = cells(_FAR, _FAR), cells(-1, 4 * _FAR)
    return jnp.asarray(queries, jnp.int32), jnp.asarray(keys.T, jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(qkv, cells, causal, scale, shape: _Shape):
    return _call(_forward, 2, (qkv,), cells, causal, scale, shape)


def _attend_forward(qkv, cells, causal, scale, shape: _Shape):
    return _attend(qkv, cells, causal, scale, shape), (qkv, cells, causal, scale)


def _attend_backward(shape: _Shape, residuals, gradient):
    qkv, cells, causal, scale = residuals
    return _call(_backward, 5, (qkv, gradient), cells, causal, scale, shape), None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _call(kernel, products: int, arrays, cells, causal, scale, shape: _Shape):
    """The kernel, once for each sample. products: of matrices, for each head."""
    (B, T, D), K = arrays[0].shape, shape.head_dim
    D, is_forward = D // 3, len(arrays) == 1
    N, dtype = D // K, arrays[0].dtype
    out = jax.ShapeDtypeStruct((B, T, D if is_forward else 3 * D), dtype)
    cost = pl.CostEstimate(
        flops=2 * products * B * N * T * T * whole_lanes(K),
        transcendentals=B * N * T * T,
        bytes_accessed=sum(a.size * a.dtype.itemsize for a in (*arrays, out)),
    )
    samples = [pl.BlockSpec((1, T, a.shape[2]), lambda b, causal, scale: (b, 0, 0)) for a in (*arrays, out)]
    whole = [pl.BlockSpec(a.shape, lambda b, causal, scale: (0, 0)) for a in cells or ()]
    # What each head gives, until all are joined; the gradients of one head's keys and values, while they are summed.
    scratch = [pltpu.VMEM((N if is_forward else 3 * N, T, K), dtype)]
    scratch += [] if is_forward else [pltpu.VMEM((T, K), jnp.float32)] * 2
    return pl.pallas_call(
        functools.partial(kernel, shape=shape),
        out_shape=out,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(B,),
            in_specs=[*samples[:-1], *whole],
            out_specs=samples[-1],
            scratch_shapes=scratch,
        ),
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=kernel_limit(T, N, K, dtype.itemsize, is_forward)),
        cost_estimate=cost,
        interpret=shape.interpret,
        name=f"short_mha{kernel.__name__}",
    )(causal, scale, *arrays, *(cells or ()))


def _forward(causal, scale, qkv, *rest, shape: _Shape):
    *cells, out, heads = rest
    shown = _mask(cells, causal, shape)
    for n in range(len(heads)):
        q, k, v = _head(qkv, n, shape)

        def attend(rows, n=n, q=q, k=k, v=v):
            weights, total = _weights(_scaled(q(rows), scale), k, shown(rows))
            heads[n, rows] = (_product(weights.astype(v.dtype), v, 1, 0) / total).astype(v.dtype)

        _for_rows(out, attend)
    _join(heads, out)


def _backward(causal, scale, qkv, gradient, *rest, shape: _Shape):
    *cells, out, heads, of_keys, of_values = rest
    K, N, shown = shape.head_dim, len(heads) // 3, _mask(cells, causal, shape)
    for n in range(N):
        q, k, v = _head(qkv, n, shape)
        of_keys[...], of_values[...] = jnp.zeros_like(of_keys), jnp.zeros_like(of_values)

        def add(rows, n=n, q=q, k=k, v=v):
            queries, given = _scaled(q(rows), scale), gradient[0, rows, n * K : (n + 1) * K]
            weights, total = _weights(queries, k, shown(rows))
            weights = weights / total
            by_weights = _product(given, v, 1, 1)
            by_logits = weights * (by_weights - (weights * by_weights).sum(axis=1, keepdims=True))
            weights, by_logits = weights.astype(v.dtype), by_logits.astype(v.dtype)
            heads[n, rows] = (_product(by_logits, k, 1, 0) * scale[0]).astype(out.dtype)
            of_keys[...] += _product(by_logits, queries, 0, 0)
            of_values[...] += _product(weights, given, 0, 0)

        _for_rows(out, add)
        heads[N + n], heads[2 * N + n] = of_keys[...].astype(out.dtype), of_values[...].astype(out.dtype)
    _join(heads, out)


def _head(qkv, n: int, shape: _Shape):
    """Of head n: a function of rows that gives their queries; all keys; all values [T, K]."""
    K, D = shape.head_dim, qkv.shape[-1] // 3
    columns = [slice(side + n * K, side + (n + 1) * K) for side in (0, D, 2 * D)]
    return lambda rows: qkv[0, rows, columns[0]], qkv[0, :, columns[1]], qkv[0, :, columns[2]]


def _for_rows(out, action) -> None:
    """action(rows) for some rows after others; out: [1, T, D], of which they are."""
    size = queries_at_a_time(out.shape[1])

    def some(i, carry) -> None:
        action(pl.ds(pl.multiple_of(i * size, size), size))

    jax.lax.fori_loop(0, out.shape[1] // size, some, None)


def _join(heads, out) -> None:
    """heads [H, T, K] side by side, into out [1, T, H K]."""

    def join(rows):
        out[0, rows] = jnp.concatenate([heads[n, rows] for n in range(len(heads))], axis=-1)

    _for_rows(out, join)


def _mask(cells, causal, shape: _Shape) -> Callable:
    """shown(rows): which keys [Q, T] their queries see; None where all see all."""
    if not cells:
        return lambda rows: None
    queries, keys = cells
    distance = _FAR * (1 - causal[pl.program_id(0)])

    def shown(rows):
        moved = queries[rows] + distance
        return SCANS[shape.scan](moved[:, :1], moved[:, 1:], keys[:1], keys[1:])

    return shown


def _scaled(q, scale) -> Float[Array, "Q K"]:
    return (q.astype(jnp.float32) * scale[0]).astype(q.dtype)


def _weights(q, k, shown) -> tuple[Float[Array, "Q T"], Float[Array, "Q 1"]]:
    """The softmax of one head in float32, before it is divided by the second."""
    logits = _product(q, k, 1, 1)
    if shown is not None:
        logits = jnp.where(shown, logits, HIDDEN)
    weights = jnp.exp(logits - logits.max(axis=1, keepdims=True))
    return weights, weights.sum(axis=1, keepdims=True)


def _product(a, b, a_axis: int, b_axis: int):
    """The matrix product over one axis of each, summed in float32."""
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)
