"""What attention over a short sequence takes of a TPU's fast memory (VMEM), and whether it is there.

All numbers were found by compiling LEDiT's and LEMMDiT's shapes for v4 to tpu7x; nothing was run.
"""

import math

import jax.numpy as jnp

from ledit_jax.ops.platform import current_device_kind

LANES = 128
_MIB = 2**20
# By the chip's fast memory in MiB: the most that `_needed` may be for a backward kernel.
_BUDGETS = {16: 10 * _MIB, 64: 50 * _MIB, 128: 72 * _MIB}
_CHIPS = {"TPU v5 lite": 128, "TPU v6": 128, "TPU v2": 16, "TPU v3": 16, "TPU v4": 16}  # others have 64
# Of the logits at a time: those of 128 queries, or of more where these are no more numbers.
_LOGITS = 2**17


def is_short(num_tokens: int, num_heads: int, head_dim: int, dtype: jnp.dtype) -> bool:
    """Whether the backward kernel, which has the most at once, finds room in the chip at hand.

    1,024 tokens of XL/2 in bfloat16 do, but on a v4, where 256 tokens of B/2 do.
    """
    needed = _needed(whole_lanes(num_tokens), num_heads, head_dim, jnp.dtype(dtype).itemsize, is_forward=False)
    return needed <= _BUDGETS[_chip()]


def kernel_limit(num_tokens: int, num_heads: int, head_dim: int, itemsize: int, is_forward: bool) -> int | None:
    """Bytes that the compiler may use for a kernel; None where it uses what it finds.

    XLA keeps arrays of its own in what a kernel leaves, so it is little more than is needed: with 96 MiB a sampling
    step of XL/2 at 256x256, which needs 7, is predicted to take 32.5 ms on a v5e in the place of 30.6.
    """
    if _chip() == 16:
        return None
    return _needed(num_tokens, num_heads, head_dim, itemsize, is_forward) * 11 // 10 + 4 * _MIB


def whole_lanes(side: int) -> int:
    """Rounded up to a register's lanes."""
    return math.ceil(side / LANES) * LANES


def queries_at_a_time(num_tokens: int) -> int:
    """How many queries' logits there are at a time: a divisor of num_tokens, which is a multiple of 128."""
    sizes = (n for n in range(LANES, num_tokens + 1, LANES) if num_tokens % n == 0)
    return max(n for n in sizes if n == LANES or n * num_tokens <= _LOGITS)


def _chip() -> int:
    kind = current_device_kind()
    return next((size for name, size in _CHIPS.items() if kind.startswith(name)), 64)


def _needed(num_tokens: int, num_heads: int, head_dim: int, itemsize: int, is_forward: bool) -> int:
    """Bytes that a kernel takes, its small arrays left out; num_tokens a multiple of 128."""
    # Queries, keys, values and the output; backward its gradient, and theirs. The next sample's come meanwhile.
    arrays = 2 * (4 if is_forward else 7) * num_tokens * whole_lanes(num_heads * head_dim) * itemsize
    head = num_tokens * whole_lanes(head_dim)
    heads = num_heads * head * itemsize if is_forward else 3 * num_heads * head * itemsize + 2 * head * 4
    return arrays + heads + (3 if is_forward else 6) * queries_at_a_time(num_tokens) * num_tokens * 4
