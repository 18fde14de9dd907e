"""Attention over a short sequence in one TPU kernel (Pallas), heads side by side as the products around it have them.

Splash attention wants its heads first, each padded to 128 lanes: for 256 tokens the copies there and back take longer
than attention. Here all heads of a sample lie in the chip's fast memory at once, with one head's T x T logits at a
time, and nothing is moved. B batch, T tokens, N heads, K head dim.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from ledit_jax.ops.platform import current_device_kind

LANES = 128
# What hides a logit: finite, and far below any real one.
HIDDEN = -0.7 * float(np.finfo(np.float32).max)
_MIB = 2**20
# What the arrays and logits below may take, and what the kernel may fill with all else, such as the gradients of heads
# that wait for the last one. A v4 has 16 MiB in all, of which the compiler uses more for the same kernel.
_BUDGET, _LIMIT = 13 * _MIB, 24 * _MIB
_SMALL_CHIPS, _SMALL_BUDGET = ("TPU v2", "TPU v3", "TPU v4"), 8 * _MIB
_BACKWARD_ARRAYS = 7  # q, k, v, the output's gradient, and theirs
_BACKWARD_LOGITS = 4


def is_short(num_tokens: int, num_heads: int, head_dim: int, dtype: jnp.dtype) -> bool:
    """Whether the backward kernel, which has the most at once, finds room: 256 tokens of XL/2 in bfloat16, not 512.

    Of the chip at hand: on a v4 those of B/2.
    """
    T, D = (math.ceil(side / LANES) * LANES for side in (num_tokens, num_heads * head_dim))
    arrays = 2 * _BACKWARD_ARRAYS * T * D * jnp.dtype(dtype).itemsize  # the next sample's are fetched meanwhile
    return arrays + (2 + _BACKWARD_LOGITS) * T * T * 4 <= (_SMALL_BUDGET if _is_small() else _BUDGET)


def _is_small() -> bool:
    return current_device_kind().startswith(_SMALL_CHIPS)


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
    mask: Bool[np.ndarray, "T T"] | None,
    causal: Bool[Array, " B"],
    scale: Float[Array, ""],
    interpret: bool = False,
) -> Float[Array, "B T D"]:
    """softmax(scale * q k^T, over the keys that the mask shows) v, with no gradient for the scale.

    qkv: as `side_by_side` has them; the result too has its heads side by side, D = F / 3. causal: samples for which the
    mask applies; others see all.
    """
    T = qkv.shape[1]
    padding = -T % LANES
    shown = None if mask is None and not padding else _padded_masks(mask, T, padding)
    qkv = jnp.pad(qkv, ((0, 0), (0, padding), (0, 0)))
    return _attend(qkv, shown, causal.astype(jnp.int32), scale[None], head_dim, interpret)[:, :T]


def _padded_masks(mask: Bool[np.ndarray, "T T"] | None, T: int, padding: int) -> Int[Array, "2 S S"]:
    """Who sees whom where the mask does not apply, and where it does; nobody sees padding."""
    everything = np.ones((T, T), bool)
    both = np.stack([everything, everything if mask is None else mask])
    # Queries that are padding see keys, so that no row of the softmax is empty.
    both = np.pad(both, ((0, 0), (0, padding), (0, 0)), constant_values=True)
    return jnp.asarray(np.pad(both, ((0, 0), (0, 0), (0, padding))), jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(qkv, shown, causal, scale, head_dim: int, interpret: bool):
    return _call(_forward, 2, (qkv,), shown, causal, scale, head_dim, interpret)


def _attend_forward(qkv, shown, causal, scale, head_dim: int, interpret: bool):
    return _attend(qkv, shown, causal, scale, head_dim, interpret), (qkv, shown, causal, scale)


def _attend_backward(head_dim: int, interpret: bool, residuals, gradient):
    qkv, shown, causal, scale = residuals
    return _call(_backward, 5, (qkv, gradient), shown, causal, scale, head_dim, interpret), None, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _call(kernel, products: int, arrays, shown, causal, scale, head_dim: int, interpret: bool):
    """The kernel, once for each sample. products: of matrices, for each head."""
    B, T, D = arrays[0].shape[0], arrays[0].shape[1], arrays[0].shape[2] // 3
    samples = [pl.BlockSpec((1, T, a.shape[2]), lambda b, causal, scale: (b, 0, 0)) for a in arrays]
    masks = [] if shown is None else [pl.BlockSpec((1, T, T), lambda b, causal, scale: (causal[b], 0, 0))]
    out = jax.ShapeDtypeStruct((B, T, D if len(arrays) == 1 else 3 * D), arrays[0].dtype)
    num_logits, padded = B * (D // head_dim) * T * T, math.ceil(head_dim / LANES) * LANES
    cost = pl.CostEstimate(
        flops=2 * products * num_logits * padded,
        transcendentals=num_logits,
        bytes_accessed=sum(a.size * a.dtype.itemsize for a in (*arrays, out)),
    )
    return pl.pallas_call(
        functools.partial(kernel, head_dim=head_dim, is_masked=shown is not None),
        out_shape=out,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(B,),
            in_specs=[*samples, *masks],
            out_specs=pl.BlockSpec((1, T, out.shape[2]), lambda b, causal, scale: (b, 0, 0)),
        ),
        compiler_params=None if _is_small() else pltpu.CompilerParams(vmem_limit_bytes=_LIMIT),
        cost_estimate=cost,
        interpret=interpret,
        name=f"short_mha{kernel.__name__}",
    )(causal, scale, *arrays, *([] if shown is None else [shown]))


def _forward(causal, scale, qkv, *rest, head_dim: int, is_masked: bool):
    *masks, out = rest
    heads = []
    for q, k, v in _heads(qkv, head_dim):
        weights = _weights(_scaled(q, scale), k, masks[0][0] if is_masked else None)
        heads.append(_product(weights.astype(v.dtype), v, 1, 0).astype(v.dtype))
    out[0] = jnp.concatenate(heads, axis=-1)


def _backward(causal, scale, qkv, gradient, *rest, head_dim: int, is_masked: bool):
    *masks, out = rest
    gradients = []
    for n, (q, k, v) in enumerate(_heads(qkv, head_dim)):
        q, given = _scaled(q, scale), gradient[0, :, n * head_dim : (n + 1) * head_dim]
        weights = _weights(q, k, masks[0][0] if is_masked else None)
        by_weights = _product(given, v, 1, 1)
        by_logits = weights * (by_weights - (weights * by_weights).sum(axis=1, keepdims=True))
        weights, by_logits = weights.astype(v.dtype), by_logits.astype(v.dtype)
        by_q = _product(by_logits, k, 1, 0) * scale[0]
        gradients.append((by_q, _product(by_logits, q, 0, 0), _product(weights, given, 0, 0)))
    by_kind = [a.astype(out.dtype) for of_all_heads in zip(*gradients, strict=True) for a in of_all_heads]
    out[0] = jnp.concatenate(by_kind, axis=-1)


def _heads(qkv, head_dim: int) -> Iterator[tuple[Array, Array, Array]]:
    """Each head's queries, keys and values [T, K]."""
    D = qkv.shape[-1] // 3
    for start in range(0, D, head_dim):
        yield tuple(qkv[0, :, side + start : side + start + head_dim] for side in (0, D, 2 * D))


def _scaled(q, scale) -> Float[Array, "T K"]:
    return (q.astype(jnp.float32) * scale[0]).astype(q.dtype)


def _weights(q, k, shown) -> Float[Array, "T T"]:
    """The softmax of one head, in float32."""
    logits = _product(q, k, 1, 1)
    if shown is not None:
        logits = jnp.where(shown != 0, logits, HIDDEN)
    weights = jnp.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _product(a, b, a_axis: int, b_axis: int):
    """The matrix product over one axis of each, summed in float32."""
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)
