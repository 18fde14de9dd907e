"""What a compiled program sends between chips and multiplies on each, every loop taken as often as it runs."""

import dataclasses
import itertools
import math
import re

from ledit_jax.compile_only.groups import first_group
from ledit_jax.compile_only.hlo import Instruction, Occurrence, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass
class Traffic:
    """One kind of collective: how often it runs in a step, and the bytes that each device sends for it."""

    count: int = 0
    sent_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program, where it runs; bytes are those that a device sends each time."""

    kind: str
    place: Occurrence
    sent_bytes: int
    group: tuple[int, ...]
    """Devices of the first group, by their place in the mesh."""


def collectives(program: Program) -> list[Collective]:
    """Every collective once.

    Bytes are those of the usual ring algorithms over n devices: n - 1 times its shard for an all-gather, (n - 1) / n
    of its operand for a reduce-scatter or an all-to-all, twice that for an all-reduce, the operand for a permute.
    """
    found: dict[object, Occurrence] = {}
    for place in program.occurrences():
        if place.instruction.opcode.removesuffix("-start") in KINDS:
            # The TPU compiler repeats an asynchronous collective in every fusion that it runs beside, some of them in
            # loops of their own. They share a channel, and the outermost starts it.
            channel = re.search(r"channel_id=(\d+)", place.instruction.attributes)
            key = channel[1] if channel else (place.computation.name, place.instruction.name)
            if key not in found or place.times < found[key].times:
                found[key] = place
    return [_collective(place, program.num_partitions) for place in found.values()]


def _collective(place: Occurrence, num_partitions: int) -> Collective:
    # A fusion of this name keeps only this device's part of the sum.
    is_scatter = place.computation.name.startswith("all-reduce-scatter")
    kind = "reduce-scatter" if is_scatter else place.instruction.opcode.removesuffix("-start")
    instructions = place.computation.instructions
    size = sum(instructions[name].num_bytes for name in place.instruction.operands)
    group = first_group(place.instruction.attributes, num_partitions)
    n = len(group)
    shares = {"all-gather": n - 1, "all-reduce": 2 * (n - 1) / n, "collective-permute": 1}
    return Collective(kind, place, round(size * shares.get(kind, (n - 1) / n)), group)


def count_collectives(program: Program) -> dict[str, Traffic]:
    """Traffic of each kind in KINDS, by device and step."""
    traffic = {kind: Traffic() for kind in KINDS}
    for found in collectives(program):
        traffic[found.kind].count += found.place.times
        traffic[found.kind].sent_bytes += found.place.times * found.sent_bytes
    return traffic


def count_flops(program: Program) -> int:
    """Floating-point operations of matrix products and convolutions on one device: two for a multiply-add.

    XLA's own count takes the body of a loop once. Padding and dilation cost nothing here, which matters because the
    TPU compiler writes a batched product as a convolution over mostly zeros.
    """
    count = {"convolution": _convolution_flops, "dot": _dot_flops}
    return sum(
        place.times * count[place.instruction.opcode](place)
        for place in program.occurrences()
        if place.instruction.opcode in count
    )


def _dot_flops(place: Occurrence) -> int:
    left = _operand(place, 0)
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", place.instruction.attributes)[1]
    sides = left.shapes[0][1]
    reduced = math.prod(sides[int(axis)] for axis in contracted.split(",") if axis)
    return 2 * math.prod(place.instruction.shapes[0][1]) * reduced


def _convolution_flops(place: Occurrence) -> int:
    attributes = place.instruction.attributes
    left, right, out = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes).groups()
    left_sides, right_sides = (_operand(place, i).shapes[0][1] for i in range(2))
    out_sides = place.instruction.shapes[0][1]
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", (re.search(r"window=\{([^}]*)\}", attributes) or ["", ""])[1]))
    taps = 1
    for axis in (label for label in out if label.isdigit()):
        taps *= _valid_taps(
            left_sides[left.index(axis)],
            out_sides[out.index(axis)],
            **{name: _along(window, name, int(axis), default) for name, default in _WINDOW.items()},
        )
    others = out_sides[out.index("b")] * out_sides[out.index("f")]
    return 2 * others * right_sides[right.index("i")] * taps


_WINDOW = {"size": "1", "stride": "1", "pad": "0_0", "lhs_dilate": "1", "rhs_dilate": "1"}


def _along(window: dict[str, str], name: str, axis: int, default: str) -> int:
    """A window's setting along one axis; of the padding, the part before."""
    return int(window[name].split("x")[axis].split("_")[0]) if name in window else int(default.split("_")[0])


def _valid_taps(side: int, out: int, *, size: int, stride: int, pad: int, lhs_dilate: int, rhs_dilate: int) -> int:
    """Pairs of an output place and a kernel tap that meet an input value, not a zero put in."""
    last = (side - 1) * lhs_dilate
    places = (o * stride + tap * rhs_dilate - pad for o, tap in itertools.product(range(out), range(size)))
    return sum(0 <= place <= last and place % lhs_dilate == 0 for place in places)


def _operand(place: Occurrence, index: int) -> Instruction:
    return place.computation.instructions[place.instruction.operands[index]]
