"""Compiles a program for a slice and says what it needs there: the table and the JSON of `--compile_only`."""

import dataclasses
import json
import re
import time
from typing import Any

import jax

from ledit_jax.compile_only.counts import KINDS, Traffic, count_collectives, count_flops
from ledit_jax.compile_only.hlo import Program
from ledit_jax.compile_only.topology import Topology
from ledit_jax.compile_only.traced_flops import traced_flops

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Memory:
    """HBM by chip, in bytes; what the output takes over from the arguments is `aliased`."""

    arguments: int
    temporaries: int
    output: int
    aliased: int
    code: int

    @property
    def total(self) -> int:
        """What the program needs at once."""
        return self.arguments + self.temporaries + self.output - self.aliased + self.code


@dataclasses.dataclass(frozen=True)
class Report:
    """What one compilation showed. Figures are by chip and by step unless their name says otherwise."""

    program: str
    topology: Topology
    mesh: dict[str, int]
    memory: Memory | None
    """None where the compiler gave up because it does not fit."""
    needed_bytes: int
    capacity_bytes: int
    model_flops: int
    """Useful work: the model's products without rematerialisation."""
    traced_flops: int
    """The same with what is computed again."""
    compiled_flops: int
    """Counted in the compiled program, loops multiplied."""
    compiler_flops: int
    """XLA's own count, which takes each loop's body once."""
    collectives: dict[str, Traffic]
    trace_seconds: float
    compile_seconds: float
    hlo_bytes: int

    @property
    def fits(self) -> bool:
        """Whether it fits in a chip's HBM."""
        return self.memory is not None and self.needed_bytes <= self.capacity_bytes

    @property
    def sent_bytes(self) -> int:
        """Over all kinds of collectives."""
        return sum(traffic.sent_bytes for traffic in self.collectives.values())

    @property
    def milliseconds_at_peak(self) -> float:
        """Time that the useful work takes at the chip's peak: no step is faster."""
        return 1e3 * self.model_flops / (self.topology.generation.peak_tflops * 1e12)

    def to_json(self) -> str:
        """All of it on one line."""
        values = dataclasses.asdict(self)
        values["topology"] = {"name": self.topology.name, "chips": self.topology.chips}
        values |= {"fits": self.fits, "sent_bytes": self.sent_bytes, "milliseconds_at_peak": self.milliseconds_at_peak}
        return json.dumps(values)

    def __str__(self) -> str:
        rows = [
            ("program", f"{self.program} on {self.topology.name}, {self.topology.chips} chips"),
            ("mesh", " x ".join(f"{axis} {size}" for axis, size in self.mesh.items())),
            *self._memory_rows(),
            ("model FLOPs / chip", f"{self.model_flops / 1e12:.3f} T ({self.milliseconds_at_peak:.1f} ms at peak)"),
            ("  with recomputation", f"{self.traced_flops / 1e12:.3f} T"),
        ]
        if self.memory:
            rows += [("  in compiled program", f"{self.compiled_flops / 1e12:.3f} T (loops multiplied)")]
            rows += [
                (f"{kind} / chip", f"{traffic.sent_bytes / 1e6:.1f} MB sent in {traffic.count}")
                for kind, traffic in self.collectives.items()
                if traffic.count
            ]
        rows += [("compile time", f"{self.trace_seconds:.1f} s to trace, {self.compile_seconds:.1f} s to compile")]
        rows += [("fits", "yes" if self.fits else "NO")]
        return "\n".join(f"{name:<24}{value}" for name, value in rows)

    def _memory_rows(self) -> list[tuple[str, str]]:
        capacity = self.capacity_bytes / _GIB
        rows = [("HBM / chip", f"{self.needed_bytes / _GIB:.2f} of {capacity:.2f} GiB")]
        if self.memory:
            parts = dataclasses.asdict(self.memory).items()
            rows += [
                (f"  {name}", f"{'-' if name == 'aliased' else ''}{value / _GIB:.2f} GiB") for name, value in parts
            ]
        return rows


def compile_for(
    topology: Topology, program: str, mesh: dict[str, int], step: Any, plain_step: Any, arguments: tuple[Any, ...]
) -> Report:
    """Compiles `step`, a jitted function, for a slice whose devices its abstract `arguments` are placed on.

    plain_step: the same without rematerialisation, for the count of useful work. Raises what the compiler raises,
    unless it is that the program does not fit.
    """
    begin = time.perf_counter()
    traced = step.trace(*arguments)
    lowered = traced.lower()
    traced_at = time.perf_counter()
    per_device = topology.chips * topology.generation.devices_per_chip
    devices = topology.generation.devices_per_chip
    common = dict(
        program=program,
        topology=topology,
        mesh=mesh,
        capacity_bytes=round(topology.generation.hbm_gib * _GIB),
        model_flops=traced_flops(plain_step.trace(*arguments).jaxpr) // per_device * devices,
        traced_flops=traced_flops(traced.jaxpr) // per_device * devices,
        trace_seconds=round(traced_at - begin, 1),
    )
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _needed_bytes(str(error))
        if needed is None:
            raise
        return Report(
            **common,
            memory=None,
            needed_bytes=needed * devices,
            compiled_flops=0,
            compiler_flops=0,
            collectives={},
            compile_seconds=round(time.perf_counter() - traced_at, 1),
            hlo_bytes=0,
        )
    seconds, text = time.perf_counter() - traced_at, compiled.as_text()
    memory = _memory(compiled, devices)
    hlo = Program(text)
    traffic = count_collectives(hlo)
    return Report(
        **common,
        memory=memory,
        needed_bytes=memory.total,
        compiled_flops=count_flops(hlo) * devices,
        compiler_flops=int((compiled.cost_analysis() or {}).get("flops", 0)) * devices,
        collectives={k: Traffic(traffic[k].count * devices, traffic[k].sent_bytes * devices) for k in KINDS},
        compile_seconds=round(seconds, 1),
        hlo_bytes=len(text),
    )


def _memory(compiled: Any, devices: int) -> Memory:
    stats = compiled.memory_analysis()
    return Memory(
        arguments=stats.argument_size_in_bytes * devices,
        temporaries=stats.temp_size_in_bytes * devices,
        output=stats.output_size_in_bytes * devices,
        aliased=stats.alias_size_in_bytes * devices,
        code=stats.generated_code_size_in_bytes * devices,
    )


def _needed_bytes(message: str) -> int | None:
    """How much the compiler says a program needs, where it refuses one for lack of HBM; None for other errors."""
    used = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message)
    return round(float(used[1]) * 1024 ** ("KMGT".index(used[2]) + 1)) if used else None
