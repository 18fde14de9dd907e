"""Which share of attention's blocks a scan skips: with tokens row by row, and in the order that the TPU's kernel takes.

  python benchmarks/attention_order.py        a second; benchmarks/results/attention_order.json, and the table

Blocks of (queries x keys) that hold no visible pair are skipped. The order is that of `ledit_jax/ops/token_order.py`
for LEDiT's grids, alone and with LEMMDiT's 77 text tokens. Nothing is run or compiled.
"""

import math
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ledit_jax.evaluation.tables import markdown  # noqa: E402
from ledit_jax.files import write_json  # noqa: E402
from ledit_jax.ops.fast_memory import is_short  # noqa: E402
from ledit_jax.ops.scan_masks import visible_blocks  # noqa: E402
from ledit_jax.ops.token_order import block_size, choose_order  # noqa: E402

RESULTS = ROOT / "benchmarks/results/attention_order.json"
GRIDS = ((16, 16), (16, 32), (32, 32), (48, 48), (64, 64), (96, 96), (128, 128))
PREFIXES = {0: (16, 72), 77: (24, 32)}
"""Heads and their dims, of LEDiT-XL/2 and of LEMMDiT-24, by tokens of text."""
SCANS = ("d", "d_inclusive", "b")


def count(scan: str, grid: tuple[int, int], num_prefix: int) -> dict:
    """Shares of blocks that are skipped, and of what."""
    block, _ = block_size(math.prod(grid) + num_prefix)
    order = choose_order(scan, grid, num_prefix)
    shown = visible_blocks(scan, *grid, block, num_prefix)
    tokens = math.prod(grid) + num_prefix
    return {
        "scan": scan,
        "grid": f"{grid[0]}x{grid[1]}",
        "prefix": num_prefix,
        "whole": is_short(tokens, *PREFIXES[num_prefix], np.dtype("bfloat16")),
        "rows": {"block": block, "skipped": 1 - shown.mean()},
        "order": {"tile": "x".join(map(str, order.tile)), "block": order.block, "skipped": 1 - order.visible.mean()},
    }


def cells(row: dict) -> list[str]:
    """Of the table."""
    rows, order = row["rows"], row["order"]
    where = [row["scan"], row["grid"], str(row["prefix"]), f"{rows['block']}: {rows['skipped']:.1%}"]
    if row["whole"]:
        return [*where, "none, one kernel holds all"]
    kept = order["tile"] == row["grid"]
    return [*where, "as before" if kept else f"{order['tile']} = {order['block']}: {order['skipped']:.1%}"]


def main() -> None:
    """Counts all, writes them down, prints the table."""
    cases = [(scan, grid, prefix) for scan in SCANS for prefix in PREFIXES for grid in GRIDS]
    rows = [count(*case) for case in cases if case[0] == "d" or case[2] == 0]
    write_json(RESULTS, rows)
    header = ["scan", "grid", "text tokens", "before, in rows: block, skipped", "in tiles: block, skipped"]
    print(markdown(header, [cells(row) for row in rows]))


if __name__ == "__main__":
    main()
