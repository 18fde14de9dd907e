"""Attention in one TPU kernel (Pallas splash attention): memory grows with T, not with T x T.

The kernel computes the scan from each query's and key's cell, so no mask is ever stored, and it skips the blocks
that the scan hides entirely; `token_order` has the order of tokens that makes these many. B batch, T tokens (a prefix,
then an h x w grid), N heads, K head dim.
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

from ledit_jax.ops.fast_memory import LANES, is_short
from ledit_jax.ops.scan_masks import SCANS
from ledit_jax.ops.short_attention import HIDDEN, short_attention, side_by_side
from ledit_jax.ops.token_order import (
    MAX_BLOCKS_FUSED,
    Grid,
    cell_code,
    cell_of_code,
    choose_order,
    from_kernel,
    key_cell,
    query_cells,
    to_kernel,
)
from ledit_jax.parallel.mesh import BATCH_AXES, TENSOR


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

    A sequence that is short enough has a kernel of its own, `short_attention`, which needs no copies around it. Splash
    attention gets the prefix behind the image: so the image's blocks, and those of them that it skips, stay what they
    are without one, and a long prefix pads no more than as many image tokens would.

    Under a mesh in context (`jax.set_mesh`) each device takes its share of batch and heads: XLA cannot split a kernel.
    """
    applies_to_all = causal is None or scan == "none"

    def short(qkv, causal, scale):
        told = dict(grid=grid, scan=scan, num_prefix=num_prefix, head_dim=q.shape[-1], interpret=interpret)
        return short_attention(qkv, causal=causal, scale=scale, **told)

    def by_heads(q, k, v, causal, scale):
        if is_short(*q.shape[1:], q.dtype):
            return short(side_by_side(q, k, v), causal, scale).reshape(q.shape)
        q = (q.astype(jnp.float32) * scale).astype(q.dtype)
        return _in_blocks(q, k, v, grid, scan, None if applies_to_all else causal, num_prefix, interpret)

    is_split, batch, heads = _shares(q.shape)
    run, arrays, spec = by_heads, (q, k, v), P(batch, None, heads, None)
    if heads is None and is_short(*q.shape[1:], q.dtype):
        # Joined outside of what each device runs: there XLA sees that they and their gradients are parts of one array.
        run, arrays, spec = short, (side_by_side(q, k, v),), P(batch, None, None)
    if is_split:
        specs = (*[spec] * len(arrays), P(batch), P())
        run = jax.shard_map(run, in_specs=specs, out_specs=spec, check_vma=False)
    causal = jnp.ones(len(q), bool) if applies_to_all else causal
    return run(*arrays, causal, jnp.asarray(scale, jnp.float32)).reshape(q.shape)


def _in_blocks(q, k, v, grid: Grid, scan: str, causal: Bool[Array, " B"] | None, num_prefix: int, interpret: bool):
    """Attention in blocks of queries and of keys; q scaled already."""
    # Where some samples see every block, no order skips any.
    order = choose_order(scan if causal is None else "none", grid, num_prefix)
    cells = query_cells(order, num_prefix)
    if causal is not None:
        # A query below and to the right of the whole grid sees all of it in every scan.
        cells = jnp.where(causal[:, None], cells, cell_code(*grid))
    rule = _mask_rule(scan, grid, order.tile, q.shape[1], order.padded)
    kernel = functools.partial(_run_kernel, visible=order.visible, rule=rule, interpret=interpret)
    q, k, v = (to_kernel(a, order, num_prefix) for a in (q, k, v))
    # Nothing else in a compiled program says how much of a kernel is skipped; compile_only/predicted_time.py asks.
    with jax.named_scope(f"blocks_{order.visible.sum()}_of_{order.visible.size}"):
        out = jax.vmap(kernel, in_axes=(0, 0, 0, None if causal is None else 0))(q, k, v, jnp.asarray(cells))
    return from_kernel(out, order, num_prefix)


@functools.lru_cache(maxsize=64)
def _mask_rule(scan: str, grid: Grid, tile: Grid, num_tokens: int, padded: int) -> Callable | None:
    """rule(query cells, key indices) -> may attend, for the kernel; None where every key is seen.

    Keys behind those of the grid, up to `num_tokens`, are seen by all. Cached, because jax compiles the kernel anew for
    each new function object.
    """
    num_image = math.prod(grid)

    def rule(cells, keys):
        seen = SCANS[scan](*cell_of_code(cells), *key_cell(keys, grid, tile))
        if num_tokens > num_image:
            seen = seen | (keys >= num_image)
        return seen & (keys < num_tokens) if padded > num_tokens else seen

    if scan != "none":
        return rule
    return (lambda cells, keys: keys < num_tokens) if padded > num_tokens else None


def _run_kernel(q, k, v, cells, *, visible: np.ndarray, rule: Callable | None, interpret: bool):
    """One sample: q, k, v [N, T, K] with T a multiple of the block; q scaled already."""
    num_blocks = len(visible)
    block = q.shape[1] // num_blocks
    is_fused = num_blocks <= MAX_BLOCKS_FUSED
    compute = max(b for b in range(LANES, min(block, 512) + 1, LANES) if block % b == 0)
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
        mask_value=HIDDEN,
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


def _shares(shape: tuple[int, ...]) -> tuple[bool, tuple[str, ...], str | None]:
    """(whether several devices share [B, T, N, K] by the mesh in context, and its axes over batch and over heads)."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.are_all_axes_manual:
        return False, (), None
    batch = tuple(axis for axis in BATCH_AXES if axis in mesh.axis_names)
    if shape[0] % math.prod(mesh.shape[axis] for axis in batch):
        batch = ()
    count = mesh.shape.get(TENSOR, 1)
    return True, batch, TENSOR if count > 1 and shape[2] % count == 0 else None
