"""Attention in one TPU kernel (Pallas splash attention): memory grows with T, not with T x T.

The kernel computes the scan from each query's and key's cell, so no mask is ever stored, and it skips the blocks
that the scan hides entirely. B batch, T tokens (a prefix, then an h x w grid), N heads, K head dim.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import (
    BlockSizes,
    SplashAttentionKernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from ledit_jax.ops.scan_masks import SCANS, visible_blocks
from ledit_jax.parallel.mesh import BATCH_AXES, TENSOR

# What hides a logit: finite, and far below any real one.
_HIDDEN = -0.7 * float(np.finfo(np.float32).max)
_LANES = 128
_MAX_BLOCK = 1024
# The fused backward kernel writes dq once per block of keys: fewer passes, but memory that grows with T x T.
_MAX_BLOCKS_FUSED = 2
# A query's cell travels as one integer, row * 2**16 + column.
_ROW_BITS = 16


def obstacle(platform: str, dtype: jnp.dtype, head_dim: int) -> str | None:
    """Why the kernel cannot run there, and what can; None if it can."""
    if platform != "tpu":
        advice = "use cudnn" if platform == "gpu" else "use xla"
        return f"attention backend splash needs a TPU, and this is a {platform}: {advice}"
    if dtype not in (jnp.float32, jnp.bfloat16):
        return f"attention backend splash takes float32 or bfloat16, not {dtype}: use xla"
    largest = 256 if dtype == jnp.bfloat16 else 128  # beyond, a block of the backward pass outgrows the chip's memory
    if head_dim > largest:
        return f"attention backend splash takes {dtype} head dims up to {largest}, not {head_dim}: use xla"
    return None


def splash_attention(
    q: Float[Array, "B T N K"],
    k: Float[Array, "B T N K"],
    v: Float[Array, "B T N K"],
    *,
    grid: tuple[int, int],
    scan: str,
    causal: Bool[Array, " B"] | None,
    scale: float | np.float32 | Float[Array, ""],
    num_prefix: int = 0,
    interpret: bool = False,
) -> Float[Array, "B T N K"]:
    """As `ledit_jax.ops.attention.attention`, with `scale` on the logits in all; `interpret` runs it without a TPU.

    The kernel gets the prefix behind the image: so the image's blocks, and those of them that it skips, stay what they
    are without one, and a long prefix pads no more than as many image tokens would.

    Under a mesh in context (`jax.set_mesh`) each device takes its share of batch and heads: XLA cannot split a kernel.
    """
    T = q.shape[1]
    block, padded = block_size(T)
    q = (q.astype(jnp.float32) * scale).astype(q.dtype)
    cells = _query_cells(grid, padded, num_prefix)
    if causal is None or scan == "none":
        visible = visible_blocks(scan, *grid, block, num_prefix)
    else:
        # A query below and to the right of the whole grid sees all of it in every scan.
        cells = jnp.where(causal[:, None], cells, _cell_code(*grid))
        visible = np.ones((padded // block,) * 2, bool)
    rule = _mask_rule(scan, *grid, T, padded)
    kernel = functools.partial(_run_kernel, visible=visible, rule=rule, interpret=interpret)

    def run(q, k, v, cells):
        q, k, v = (_turned(a, num_prefix) for a in (q, k, v))
        q, k, v = (jnp.pad(a.swapaxes(1, 2), ((0, 0), (0, 0), (0, padded - T), (0, 0))) for a in (q, k, v))
        # Nothing else in a compiled program says how much of a kernel is skipped; compile_only/predicted_time.py asks.
        with jax.named_scope(f"blocks_{visible.sum()}_of_{visible.size}"):
            out = jax.vmap(kernel, in_axes=(0, 0, 0, 0 if cells.ndim == 2 else None))(q, k, v, cells)
        return _turned(out[:, :, :T].swapaxes(1, 2), T - num_prefix)

    return _over_mesh(run, q.shape)(q, k, v, jnp.asarray(cells))


def block_size(num_tokens: int) -> tuple[int, int]:
    """(block, padded): the kernel's block of queries and of keys, and T padded up to a multiple of it.

    Large blocks cost less, padding costs T x T, hence 640 for 576 = 24 x 24 tokens and 1024 for 16,384.
    """

    def cost(block: int) -> float:
        return _round_up(num_tokens, block) ** 2 * (1 + 64 / block)

    block = min(range(_LANES, _MAX_BLOCK + 1, _LANES), key=cost)
    return block, _round_up(num_tokens, block)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _turned(x: Float[Array, "B T N K"], count: int) -> Float[Array, "B T N K"]:
    """The first `count` tokens behind the others."""
    return jnp.concatenate([x[:, count:], x[:, :count]], axis=1) if 0 < count < x.shape[1] else x


def _cell_code(row, col):
    return (row << _ROW_BITS) + col


def _query_cells(grid: tuple[int, int], padded: int, num_suffix: int) -> Int[np.ndarray, " padded"]:
    """Each query's cell as one integer. Queries that are padding get rows below the grid: they see keys, not NaN."""
    index = np.arange(padded, dtype=np.int32)
    cells, num_image = _cell_code(index // grid[1], index % grid[1]), math.prod(grid)
    cells[num_image : num_image + num_suffix] = _cell_code(*grid)  # sees all in every scan
    return cells


@functools.lru_cache(maxsize=64)
def _mask_rule(scan: str, height: int, width: int, num_tokens: int, padded: int) -> Callable | None:
    """rule(query cells, key indices) -> may attend, for the kernel; None where every key is seen.

    Keys behind those of the grid, up to `num_tokens`, are seen by all. Cached, because jax compiles the kernel anew for
    each new function object.
    """
    num_image = height * width

    def rule(cells, keys):
        row, col = cells >> _ROW_BITS, cells & (2**_ROW_BITS - 1)
        seen = SCANS[scan](row, col, *_key_cell(keys, width))
        if num_tokens > num_image:
            seen = seen | (keys >= num_image)
        return seen & (keys < num_tokens) if padded > num_tokens else seen

    if scan != "none":
        return rule
    return (lambda cells, keys: keys < num_tokens) if padded > num_tokens else None


def _key_cell(keys, width: int):
    """Row and column of key indices, without the integer division that a TPU's vector unit lacks."""
    if width & (width - 1) == 0:
        return keys >> (width.bit_length() - 1), keys & (width - 1)
    # Half a cell away from the integers, the rounding of float32 is harmless up to millions of keys.
    row = ((keys.astype(jnp.float32) + 0.5) * (1 / width)).astype(jnp.int32)
    return row, keys - row * width


def _run_kernel(q, k, v, cells, *, visible: np.ndarray, rule: Callable | None, interpret: bool):
    """One sample: q, k, v [N, T, K] with T a multiple of the block; q scaled already."""
    num_blocks = len(visible)
    block = q.shape[1] // num_blocks
    is_fused = num_blocks <= _MAX_BLOCKS_FUSED
    compute = max(b for b in range(_LANES, min(block, 512) + 1, _LANES) if block % b == 0)
    sizes = BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=compute,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=compute,
        block_q_dq=None if is_fused else block,
        block_kv_dq=None if is_fused else block,
        use_fused_bwd_kernel=is_fused,
    )

    def info(fetch: np.ndarray) -> MaskInfo:
        used = None if rule is None else cells
        return MaskInfo(jnp.asarray(fetch[None]), None, jnp.asarray(visible[None], jnp.int32), None, used)

    by_query = info(_next_visible(visible))
    by_key = info(_next_visible(visible.T).T)
    run = SplashAttentionKernel(
        by_query,
        None if is_fused else by_query,
        by_key,
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=False,
        mask_value=_HIDDEN,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=None,
        mask_function=rule,
        interpret=interpret,
    )
    return run(q, k, v)


def _next_visible(visible: Bool[np.ndarray, "n n"]) -> Int[np.ndarray, "n n"]:
    """For each block in reading order the column of the next visible one: what the kernel may fetch meanwhile."""
    columns = np.flatnonzero(visible) % visible.shape[1]
    upcoming = np.cumsum(visible) - visible.ravel()  # visible blocks before this one
    return columns[upcoming % len(columns)].reshape(visible.shape).astype(np.int32)


def _over_mesh(run: Callable, shape: tuple[int, ...]) -> Callable:
    """`run` on each device's share of batch and heads, for the mesh in context; `run` itself where there is none."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual:
        return run
    batch = tuple(axis for axis in BATCH_AXES if axis in mesh.axis_names)
    if shape[0] % math.prod(mesh.shape[axis] for axis in batch):
        batch = ()
    heads = TENSOR if shape[2] % mesh.shape.get(TENSOR, shape[2] + 1) == 0 else None

    def sharded(q, k, v, cells):
        spec = P(batch, None, heads, None)
        cells_spec = P(batch, None) if cells.ndim == 2 else P()
        split = jax.shard_map(run, in_specs=(spec,) * 3 + (cells_spec,), out_specs=spec, check_vma=False)
        return split(q, k, v, cells)

    return sharded
