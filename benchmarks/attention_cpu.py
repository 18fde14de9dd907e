"""Attention on CPU: the backends `xla` and `reference` against PyTorch's fused attention with the same dense mask.

  python benchmarks/attention_cpu.py      float32, scans none and d, 16, 256 and 1,024 tokens; prints Markdown

All sides get the same inputs and must agree to 1e-4 before anything is timed. They take turns, so that a busy machine
slows all of them; columns are medians, a speedup is the median ratio of neighbours in time, above 1 if xla is faster.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.train_step import describe_machine, time_side_by_side  # noqa: E402
from ledit_jax.ops.attention import attention  # noqa: E402
from ledit_jax.ops.scan_masks import scan_mask  # noqa: E402

CASES = {"digits": (64, (4, 4), 4, 24), "S/2 at 256": (4, (16, 16), 6, 64), "S/2 at 512": (1, (32, 32), 6, 64)}
"""Batch, token grid, heads, head dim."""
SCANS = ("none", "d")


def jax_side(backend: str, arrays: list[np.ndarray], grid: tuple[int, int], scan: str) -> dict[str, Callable]:
    """{"forward": () -> output, "forward+backward": () -> gradients of q, k and v}, each once it is done."""
    *qkv, cotangent = jax.device_put(arrays)

    def run(q, k, v):
        return attention(q, k, v, grid=grid, scan=scan, backend=backend)

    forward, gradient = jax.jit(run), jax.jit(lambda g, *qkv: jax.vjp(run, *qkv)[1](g))
    return {
        "forward": lambda: jax.block_until_ready(forward(*qkv)),
        "forward+backward": lambda: jax.block_until_ready(gradient(cotangent, *qkv)),
    }


def torch_side(arrays: list[np.ndarray], grid: tuple[int, int], scan: str) -> dict[str, Callable]:
    """The same in PyTorch, from and to [B, T, N, K] as ours."""
    *qkv, cotangent = (torch.from_numpy(a) for a in arrays)
    leaves = [a.clone().requires_grad_() for a in qkv]
    mask = None if scan == "none" else torch.from_numpy(scan_mask(scan, *grid))

    def run(*qkv):
        q, k, v = (a.transpose(1, 2) for a in qkv)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    def forward():
        with torch.inference_mode():
            return run(*qkv)

    return {"forward": forward, "forward+backward": lambda: torch.autograd.grad(run(*leaves), leaves, cotangent)}


def check_agreement(name: str, ours: dict[str, Callable], theirs: dict[str, Callable]) -> None:
    """Raises ValueError where outputs or gradients differ by more than 1e-4 of their largest value."""
    for part in ours:
        for got, want in zip(jax.tree.leaves(ours[part]()), jax.tree.leaves(theirs[part]()), strict=True):
            error = np.abs(np.asarray(got) - np.asarray(want)).max() / np.abs(np.asarray(want)).max()
            if not error < 1e-4:
                raise ValueError(f"{name}, {part}: differs by {error:.1e} of the largest value, nothing is timed")


def run_case(name: str, scan: str, repeats: int) -> list[str]:
    """A line of the table for forward, and one for forward and backward."""
    batch, grid, heads, head_dim = CASES[name]
    shape = (batch, grid[0] * grid[1], heads, head_dim)
    arrays = list(np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32))
    xla, reference = (jax_side(backend, arrays, grid, scan) for backend in ("xla", "reference"))
    theirs = torch_side(arrays, grid, scan)
    for side in (xla, reference):
        check_agreement(f"{name}, scan {scan}", side, theirs)
    lines = []
    for part in xla:
        fused, plain = (time_side_by_side(xla[part], other[part], repeats, "wall") for other in (theirs, reference))
        lines.append(
            f"| {name} | {'x'.join(map(str, shape))} | {scan} | {part} | {fused['jax_ms']:.1f} | "
            f"{fused['torch_ms']:.1f} | {fused['speedup']:.2f}x | {plain['speedup']:.2f}x |"
        )
    return lines


def main() -> None:
    """Times and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="may be repeated (default: all)")
    parser.add_argument("--repeats", type=int, default=30, help="timed rounds (default: 30)")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    print("| case | B x T x N x K | scan | pass | xla, ms | PyTorch, ms | over PyTorch | over reference |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.case or CASES:
        for scan in SCANS:
            print("\n".join(run_case(name, scan, args.repeats)), flush=True)
    print("\n" + ", ".join(f"{key} {value}" for key, value in describe_machine(threads).items()))


if __name__ == "__main__":
    main()
