"""Which tokens the oracle's causal blocks let see which, and which of its blocks are causal."""

import torch
from torch import Tensor


def may_attend(variant: str, row: int, col: int, key_row: int, key_col: int) -> bool:
    """Whether the query at (row, col) sees the key at (key_row, key_col) under a causal scan."""
    if variant == "none":
        return True
    if variant == "a":
        return key_row < row or (key_row == row and key_col <= col)
    if variant == "b":
        return key_row <= row and key_col <= col
    if variant == "c":
        neighbour = max(abs(key_row - row), abs(key_col - col)) <= 1
        return neighbour or (key_row <= row and key_col <= col)
    if variant == "d":
        return key_row <= row or key_col <= col
    if variant == "d_inclusive":
        return key_row < row or key_col < col or (key_row, key_col) == (row, col)
    raise ValueError(f"no scan variant {variant!r}")


def scan_mask(variant: str, height: int, width: int) -> Tensor:
    """bool [T, T] of a token grid, query by key, one pair of cells at a time; True may attend."""
    cells = [(row, col) for row in range(height) for col in range(width)]
    return torch.tensor([[may_attend(variant, *query, *key) for key in cells] for query in cells])


def block_kinds(order: str, depth: int) -> list[str]:
    """ "sa" or "ca" for each block, first to last."""
    half = depth // 2
    return {
        "sa_ca": ["sa", "ca"] * half,
        "ca_sa": ["ca", "sa"] * half,
        "sa_then_ca": ["sa"] * half + ["ca"] * half,
        "ca_then_sa": ["ca"] * half + ["sa"] * half,
        "sa": ["sa"] * depth,
        "ca": ["ca"] * depth,
        "single_ca": ["ca"] + ["sa"] * (depth - 1),
    }[order]
