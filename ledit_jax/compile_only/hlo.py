"""A compiled program's text, read as far as counting needs it: instructions, and how often each of them runs."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2}
_BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"\b(pred|[suf]\d+|bf16|c\d+|f8\w+)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CALLED = re.compile(r"(?:calls|to_apply|branch_computations)=(\{[^}]*\}|%[\w.\-]+)")


Shape = tuple[str, tuple[int, ...]]
"""(dtype, sides)."""


def read_shapes(text: str) -> tuple[Shape, ...]:
    """Every array that a text of HLO names."""
    return tuple((m[1], tuple(map(int, m[2].split(","))) if m[2] else ()) for m in _ARRAY.finditer(text))


def item_bytes(dtype: str) -> float:
    """Of one number; a dtype of eight bits or fewer that is not listed counts one byte."""
    return float(_BYTES.get(dtype, 1))


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of HLO: `name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    arguments: str
    """The text between the parentheses: a constant's value."""

    @functools.cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Of the result, or of each part of a tuple."""
        return read_shapes(self.type)

    @property
    def num_bytes(self) -> int:
        """Size of the result."""
        return int(sum(item_bytes(dtype) * math.prod(sides) for dtype, sides in self.shapes))


@dataclasses.dataclass
class Computation:
    """A function of the program: its instructions by name, and the one it returns."""

    name: str
    instructions: dict[str, Instruction]
    root: str = ""

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """An operand, seen through copies."""
        found = self.instructions[instruction.operands[index]]
        while found.opcode in ("copy", "bitcast", "convert"):
            found = self.instructions[found.operands[0]]
        return found


@dataclasses.dataclass(frozen=True)
class Occurrence:
    """An instruction where it runs: how often, in which computation, inside which loops."""

    instruction: Instruction
    computation: Computation
    times: int
    loops: tuple[str, ...]
    is_fused: bool = False
    """Inside a fusion, whose time is that of the whole."""
    is_conditional: bool = False
    """In a branch, which may not run."""


class Program:
    """A compiled module."""

    def __init__(self, text: str):
        """text: `compiled.as_text()`."""
        self.head = text[: text.find("\n%")]
        """What comes before the first computation."""
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        match = re.search(r"num_partitions=(\d+)", text)
        self.num_partitions = int(match[1]) if match else 1
        current = None
        text = re.sub(r"=\{\n(.*)\n\}\}", r"={\1}}", text)  # a kernel's metadata has lines of its own
        for line in text.splitlines():
            if current is None:
                if match := _COMPUTATION.match(line):
                    current = self.computations[match[2]] = Computation(match[2], {})
                    self.entry = match[2] if match[1] else self.entry
            elif line.startswith("}"):
                current = None
            elif match := _INSTRUCTION.match(line):
                current.instructions[match[2]] = _parse_instruction(match[2], line[match.end() :])
                current.root = match[2] if match[1] else current.root

    def occurrences(self) -> Iterator[Occurrence]:
        """Every instruction that runs, loops and calls followed, with the product of the loops' trip counts."""
        if self.entry:
            yield from self._visit(self.computations[self.entry], 1, ())

    def _visit(
        self,
        computation: Computation,
        times: int,
        loops: tuple[str, ...],
        is_fused: bool = False,
        is_conditional: bool = False,
    ) -> Iterator[Occurrence]:
        for instruction in computation.instructions.values():
            yield Occurrence(instruction, computation, times, loops, is_fused, is_conditional)
            if instruction.opcode == "while":
                body = re.search(r"body=%?([\w.\-]+)", instruction.attributes)[1]
                trips = self._trip_count(computation, instruction, body)
                within = (*loops, instruction.name)
                yield from self._visit(self.computations[body], times * trips, within, is_fused, is_conditional)
            elif instruction.opcode in ("fusion", "call", "async-start", "conditional"):
                inside = is_fused or instruction.opcode == "fusion"
                branch = is_conditional or instruction.opcode == "conditional"
                for name in called_computations(instruction):
                    yield from self._visit(self.computations[name], times, loops, inside, branch)

    def _trip_count(self, computation: Computation, loop: Instruction, body_name: str) -> int:
        """From XLA's own note, else from `counter < limit` of the condition and `counter + step` of the body."""
        if known := re.search(r"known_trip_count[^0-9}]*(\d+)", loop.attributes):
            return int(known[1])
        condition = self.computations[re.search(r"condition=%?([\w.\-]+)", loop.attributes)[1]]
        body = self.computations[body_name]
        compare = condition.instructions[condition.root]
        if compare.opcode != "compare":
            raise ValueError(f"loop {loop.name}: its condition ends in {compare.opcode}, so its length is not known")
        counter, limit = condition.operand(compare, 0), _constant(condition.operand(compare, 1))
        index = int(re.search(r"index=(\d+)", counter.attributes)[1])
        start = _constant(computation.operand(computation.operand(loop, 0), index))
        add = body.operand(body.instructions[body.root], index)
        step = _constant(body.operand(add, 1)) if add.opcode == "add" else None
        if limit is None:
            raise ValueError(f"loop {loop.name}: the limit of its counter is not a constant")
        return math.ceil((limit - (start or 0)) / (step or 1))


def called_computations(instruction: Instruction) -> list[str]:
    """Names of what a fusion, call or conditional runs."""
    return re.findall(r"[\w.\-]+", " ".join(_CALLED.findall(instruction.attributes)))


def _constant(instruction: Instruction) -> int | None:
    return int(instruction.arguments) if instruction.opcode == "constant" else None


def _parse_instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.index(" ") - 1
    kind, rest = text[: end + 1], text[end + 1 :].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    arguments, attributes = rest[opening + 1 : closing], rest[closing + 1 :]
    return Instruction(name, kind, rest[:opening], tuple(re.findall(r"%([\w.\-]+)", arguments)), attributes, arguments)


def _closing(text: str, opening: int) -> int:
    depth = 0
    for place in range(opening, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if not depth:
            return place
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")
