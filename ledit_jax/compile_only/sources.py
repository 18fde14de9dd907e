"""Where in the source an instruction of a compiled program comes from, by the tables at the head of its text."""

import re
from pathlib import Path

from ledit_jax.compile_only.hlo import Instruction, Occurrence, Program, called_computations

_PACKAGE = f"{Path(__file__).parents[1]}/"
_PRODUCTS = ("convolution", "dot")
_OUTSIDE = "outside this package"


class Sources:
    """The stack frames of a program."""

    def __init__(self, program: Program):
        self.program, head = program, program.head
        files = dict(re.findall(r'^(\d+) "(.*)"$', head.partition("FunctionNames")[0], re.MULTILINE))
        located = re.findall(r"^(\d+) \{file_name_id=(\d+) .*?line=(\d+)", head, re.MULTILINE)
        framed = re.findall(r"^(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?", head, re.MULTILINE)
        self.locations = {number: (files.get(file, ""), line) for number, file, line in located}
        # A parent is written as its number plus one, and 1 is none.
        self.frames = {number: (location, str(int(parent or 1) - 1)) for number, location, parent in framed}

    def place(self, found: Occurrence) -> str:
        """The line of this package that an instruction comes from and the line that called it, innermost last; which
        pass it belongs to. A fusion comes from where its matrix product does, if it has one."""
        instruction = _with_metadata(self.program, found.instruction)
        if instruction is None:
            return f"{found.instruction.opcode} of the compiler's"
        frame = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        operation = re.search(r'op_name="([^"]*)"', instruction.attributes)
        operation = operation[1] if operation else ""
        which = "backward" if "transpose(" in operation else "forward" if "jvp(" in operation else ""
        where = self._lines(frame[1]) if frame else _OUTSIDE
        name = operation.rsplit("/", 1)[-1]
        return " ".join(part for part in (where, name, which) if part)

    def _lines(self, frame: str) -> str:
        found: list[str] = []
        while frame in self.frames and len(found) < 2:
            location, parent = self.frames[frame]
            file, line = self.locations.get(location, ("", ""))
            if file.startswith(_PACKAGE):
                found.append(f"{file.removeprefix(_PACKAGE)}:{line}")
            frame = parent
        return " > ".join(reversed(found)) or _OUTSIDE


def _with_metadata(program: Program, instruction: Instruction) -> Instruction | None:
    """Of a fusion the product in it, else the instruction itself, else what a fusion returns or holds."""
    inside = [
        found
        for name in called_computations(instruction)
        if instruction.opcode == "fusion"
        for found in program.computations[name].instructions.values()
    ]
    candidates = [found for found in inside if found.opcode in _PRODUCTS] + [instruction] + inside[::-1]
    return next((found for found in candidates if "stack_frame_id=" in found.attributes), None)
