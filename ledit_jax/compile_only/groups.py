"""Which devices a collective runs over, in each of the ways that a compiled program writes it."""

import re

import numpy as np


def first_group(attributes: str, num_partitions: int) -> tuple[int, ...]:
    """Devices, by their place in the mesh, of the first group that takes part: of groups listed, of a grid
    [groups,size], or of the named axes of a mesh; all devices where no groups are given.

    Raises ValueError for groups written in another way: a guess would be wrong by orders of magnitude.
    """
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\]([^{]*)\{([^}]*)\}", attributes):
        return _mesh_group(dict(re.findall(r"'(\w+)'=(\d+)", mesh[1])), mesh[2], mesh[3])
    if grid := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", attributes):
        return tuple(_iota(grid[3]).reshape(int(grid[1]), int(grid[2]))[0].tolist())
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return tuple(map(int, listed[1].split(",")))
    if re.search(r"replica_groups=(?!\{\})", attributes):
        raise ValueError(f"replica groups of a form that is not known: {attributes[:200]}")
    return tuple(range(num_partitions))


def pairs(attributes: str) -> list[tuple[int, int]]:
    """(from, to) of a permute."""
    found = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes)
    return [(int(a), int(b)) for a, b in re.findall(r"\{(\d+),(\d+)\}", found[1])] if found else []


def _mesh_group(sides: dict[str, str], device_ids: str, axes: str) -> tuple[int, ...]:
    """axes: 'x', or 'x':(2)4 for a part of an axis: the 4 that come after a factor of 2."""
    shape, taken = [], []
    parts = {name: (int(before or 1), int(size)) for name, before, size in re.findall(r"'(\w+)':\((\d+)\)(\d+)", axes)}
    whole = set(re.findall(r"'(\w+)'", axes)) - set(parts)
    for name, side in sides.items():
        before, size = parts.get(name, (1, int(side) if name in whole else 1))
        shape += [before, size, int(side) // (before * size)]
        taken += [0, slice(None), 0]
    order = re.search(r"device_ids=\(?(\[[\d,]+\](?:T\([\d,]+\))?)", device_ids)
    devices = _iota(order[1]) if order else np.arange(np.prod(shape))
    return tuple(devices.reshape(shape)[tuple(taken)].ravel().tolist())


def _iota(text: str) -> np.ndarray:
    """The numbers from 0 on in the shape and order of "[2,4]T(1,0)"."""
    sides = [int(side) for side in re.search(r"\[([\d,]+)\]", text)[1].split(",")]
    devices = np.arange(np.prod(sides)).reshape(sides)
    order = re.search(r"T\(([\d,]+)\)", text)
    return devices.transpose([int(axis) for axis in order[1].split(",")]) if order else devices
