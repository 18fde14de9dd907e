"""How long a step should take on a chip, by the compiler's own estimates: predicted, never measured.

- What XLA generates has an `estimated_cycles` in the compiled program; loops count as often as they run.
- Hand-written kernels have none. Splash attention is taken to run at the peak of the matrix units or of the memory,
  whichever is longer: its products with head dims padded to a register's 128 lanes and blocks that the scan hides left
  out, and operands and results padded likewise. Other kernels count in the same way by the FLOPs that they state
  themselves (`ops/short_attention.py` does), and by their bytes.
- Collectives are what a chip sends over the links that it has along the slice's sides that the group spans, two where
  a side wraps around, else one. A permute is one link for each hop.

Left out are the waits of copies to the chip's own memory that the compiler starts ahead, and of the host, and what runs
under a condition: norms that are wanted at logged steps alone.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence

from ledit_jax.compile_only.counts import Collective, collectives
from ledit_jax.compile_only.groups import pairs
from ledit_jax.compile_only.hlo import Occurrence, Program, item_bytes, read_shapes
from ledit_jax.compile_only.sources import Sources
from ledit_jax.compile_only.topology import Topology

_LANES = 128
_SPLASH = re.compile(r"splash_mha_(fwd|dq|dkv)")
_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4, "fused dkv": 5}
"""Matrix products of each kernel; the fused one gives all three gradients."""
_NUM_COSTLIEST = 10


@dataclasses.dataclass(frozen=True)
class Cost:
    """Some of a step's time: where it comes from, and milliseconds of a step."""

    place: str
    milliseconds: float


@dataclasses.dataclass(frozen=True)
class PredictedTime:
    """Predicted milliseconds of a step."""

    generated: float
    """What the compiler made, by its own cycles."""
    kernels: float
    """Hand-written kernels."""
    network: float
    """Collectives, one after the other."""
    costliest: tuple[Cost, ...]
    """Of the compiler's and the kernels', the longest first."""

    @property
    def compute(self) -> float:
        """Without the network."""
        return self.generated + self.kernels

    @property
    def hidden(self) -> float:
        """The step where the network works beside the compute as far as possible."""
        return max(self.compute, self.network)

    @property
    def exposed(self) -> float:
        """The step where nothing is computed while the network works."""
        return self.compute + self.network


def predict_time(
    program: Program, topology: Topology, peak_flops: float, coordinates: Sequence[Sequence[int]]
) -> PredictedTime:
    """peak_flops: FLOP/s of a device in bfloat16. coordinates: of the slice's devices, in the order of the mesh."""
    sources, parts = Sources(program), Counter()
    costs: Counter[str] = Counter()
    for found in program.occurrences():
        if found.is_fused or found.is_conditional:
            continue
        generated, kernel = _generated(found, topology), _kernel(found, topology, peak_flops)
        if generated or kernel:
            parts["generated"] += generated * found.times
            parts["kernels"] += kernel * found.times
            costs[sources.place(found)] += (generated + kernel) * found.times
    sent = sum(
        found.place.times * _sending(found, topology, coordinates)
        for found in collectives(program)
        if not found.place.is_conditional
    )
    costliest = tuple(Cost(place, round(1e3 * seconds, 4)) for place, seconds in costs.most_common(_NUM_COSTLIEST))
    generated, kernels, sent = (round(1e3 * seconds, 4) for seconds in (parts["generated"], parts["kernels"], sent))
    return PredictedTime(generated, kernels, sent, costliest)


def _generated(found: Occurrence, topology: Topology) -> float:
    """Seconds of one instruction that the compiler has an estimate of."""
    cycles = re.search(r'"estimated_cycles":"(\d+)"', found.instruction.attributes)
    return int(cycles[1]) / (topology.generation.clock_ghz * 1e9) if cycles else 0.0


def _kernel(found: Occurrence, topology: Topology, peak_flops: float) -> float:
    """Seconds of one hand-written kernel, on a device of `peak_flops` FLOP/s."""
    instruction, chip = found.instruction, topology.generation
    if instruction.opcode != "custom-call" or '"tpu_custom_call"' not in instruction.attributes:
        return 0.0
    constraints = re.search(r"operand_layout_constraints=\{(.*?\})\}", instruction.attributes)
    operands = read_shapes(constraints[1]) if constraints else ()
    moved = sum(item_bytes(dtype) * _padded_size(sides) for dtype, sides in (*operands, *instruction.shapes))
    seconds = moved * chip.devices_per_chip / (chip.hbm_gb_per_second * 1e9)
    splash = _SPLASH.match(instruction.name)
    if not splash:
        stated = re.search(r'"cost_estimate":\{"flops":"(\d+)"', instruction.attributes)
        return max(seconds, int(stated[1]) / peak_flops) if stated else seconds
    q, k = [sides for _, sides in operands if len(sides) == 4][:2]
    # The fused kernel gives the queries' gradient too, once for each block of keys; its settings do not say it.
    is_fused = splash[1] == "dkv" and any(len(sides) == len(k) + 1 for _, sides in instruction.shapes)
    products = _PRODUCTS["fused dkv" if is_fused else splash[1]]
    flops = 2 * products * math.prod(q[:-1]) * k[-2] * _round_up(q[-1], _LANES)
    return max(seconds, flops * _visible_share(instruction.attributes) / peak_flops)


def _visible_share(attributes: str) -> float:
    """Of the kernel's blocks, by the scope that it is called in (`ops/splash_attention.py`); all without one."""
    scope = re.search(r"blocks_(\d+)_of_(\d+)", attributes)
    return int(scope[1]) / int(scope[2]) if scope else 1.0


def _padded_size(sides: tuple[int, ...]) -> int:
    """Numbers of an array whose rows fill registers of 8 x 128."""
    rows, lanes = (1, 1, *sides)[-2:]
    return math.prod(sides[:-2]) * _round_up(rows, 8) * _round_up(lanes, _LANES)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _sending(found: Collective, topology: Topology, coordinates: Sequence[Sequence[int]]) -> float:
    """Seconds of one collective."""
    link = topology.generation.link_gb_per_second * 1e9
    if found.kind == "collective-permute":
        ways = pairs(found.place.instruction.attributes)
        hops = [_hops(coordinates[a], coordinates[b], topology) for a, b in ways if a != b]
        return found.sent_bytes * sum(hops) / max(1, len(hops)) / link
    spanned = {axis for axis in range(len(topology.sides)) if len({coordinates[i][axis] for i in found.group}) > 1}
    links = sum(2 if topology.wraps_around(axis) else 1 for axis in spanned)
    return found.sent_bytes / max(1, links) / link


def _hops(start: Sequence[int], end: Sequence[int], topology: Topology) -> int:
    """Links between two chips; 0 within one."""
    total = 0
    for axis, side in enumerate(topology.sides):
        distance = abs(start[axis] - end[axis])
        total += min(distance, side - distance) if topology.wraps_around(axis) else distance
    return total
