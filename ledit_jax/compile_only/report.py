"""Compiles a program for a slice and says what it needs there: the table and the JSON of `--compile_only`."""

import dataclasses
import json
import re
import time
from typing import Any

import jax
from jax.sharding import Mesh

from ledit_jax.compile_only.counts import Traffic, count_collectives, count_flops
from ledit_jax.compile_only.hlo import Program
from ledit_jax.compile_only.predicted_time import PredictedTime, predict_time
from ledit_jax.compile_only.topology import Topology
from ledit_jax.flops import PEAK_BF16_FLOPS

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
    """Counted from the config: useful work, without what rematerialisation repeats."""
    peak_flops: float
    """FLOP/s of a chip in bfloat16."""
    compiled_flops: int
    """Counted in the compiled program, loops multiplied: with what is repeated."""
    compiler_flops: int
    """XLA's own count, which takes each loop's body once."""
    collectives: dict[str, Traffic]
    images: int
    """That a step takes, over all chips."""
    predicted: PredictedTime | None
    """None where it does not fit."""
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
        return 1e3 * self.model_flops / self.peak_flops

    def predicted_speed(self, milliseconds: float) -> tuple[float, float]:
        """(images/s of a chip, share 0..1 of its peak) of a step that takes so long."""
        return 1e3 * self.images / self.topology.chips / milliseconds, self.milliseconds_at_peak / milliseconds

    def to_json(self) -> str:
        """All of it on one line."""
        values = dataclasses.asdict(self)
        values["topology"] = {"name": self.topology.name, "chips": self.topology.chips}
        if self.predicted:
            sums = {name: round(getattr(self.predicted, name), 4) for name in ("compute", "hidden", "exposed")}
            values["predicted"] |= sums | {"share_of_peak": self.predicted_speed(self.predicted.hidden)[1]}
        values |= {"fits": self.fits, "sent_bytes": self.sent_bytes, "milliseconds_at_peak": self.milliseconds_at_peak}
        return json.dumps(values)

    def __str__(self) -> str:
        rows = [
            ("program", f"{self.program} on {self.topology.name}, {self.topology.chips} chips"),
            ("mesh", " x ".join(f"{axis} {size}" for axis, size in self.mesh.items())),
            *self._memory_rows(),
            ("model FLOPs / chip", f"{self.model_flops / 1e12:.3f} T ({self.milliseconds_at_peak:.1f} ms at peak)"),
        ]
        if self.memory:
            ratio = self.compiled_flops / self.model_flops
            rows += [("  as compiled", f"{self.compiled_flops / 1e12:.3f} T ({ratio:.2f}x, loops multiplied)")]
            rows += [
                (f"{kind} / chip", f"{traffic.sent_bytes / 1e6:.1f} MB sent in {traffic.count}")
                for kind, traffic in self.collectives.items()
                if traffic.count
            ]
            rows += self._predicted_rows()
        rows += [("compile time", f"{self.trace_seconds:.1f} s to trace, {self.compile_seconds:.1f} s to compile")]
        rows += [("fits", "yes" if self.fits else "NO")]
        width = max(len(name) for name, _ in rows) + 2
        return "\n".join(f"{name:<{width}}{value}" for name, value in rows)

    def _predicted_rows(self) -> list[tuple[str, str]]:
        time = self.predicted
        rows = [("predicted compute", f"{time.compute:.1f} ms, of it hand-written kernels {time.kernels:.1f}")]
        rows += [("predicted network", f"{time.network:.1f} ms")] if time.network else []
        sums = {"predicted step": time.hidden}
        if time.network:
            sums = {"predicted step, network hidden": time.hidden, "predicted step, not hidden": time.exposed}
        for name, milliseconds in sums.items():
            speed, share = self.predicted_speed(milliseconds)
            rows += [(name, f"{milliseconds:.1f} ms: {speed:.1f} images/s a chip, {share:.0%} of peak")]
        return rows + [(f"  {cost.milliseconds:.2f} ms", cost.place) for cost in time.costliest]

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
    topology: Topology, program: str, mesh: Mesh, images: int, model_flops: int, step: Any, arguments: tuple[Any, ...]
) -> Report:
    """Compiles `step`, a jitted function, for a slice whose devices its abstract `arguments` are placed on.

    images: how many a step takes. model_flops: useful work of the step; both over all chips. Raises what the compiler
    raises, unless it is that the program does not fit: the report says so then.
    """
    begin = time.perf_counter()
    lowered = step.lower(*arguments)
    lowered_at = time.perf_counter()
    devices, peak = topology.generation.devices_per_chip, PEAK_BF16_FLOPS[mesh.devices.flat[0].device_kind]
    compiled, needed = None, None
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _needed_bytes(str(error))
        if needed is None:
            raise
    seconds = time.perf_counter() - lowered_at
    memory = _memory(compiled, devices) if compiled else None
    text = compiled.as_text() if compiled else ""
    hlo = Program(text)
    return Report(
        program=program,
        topology=topology,
        mesh=dict(mesh.shape),
        memory=memory,
        needed_bytes=memory.total if memory else needed * devices,
        capacity_bytes=round(topology.generation.hbm_gib * _GIB),
        model_flops=model_flops // topology.chips,
        peak_flops=peak * devices,
        compiled_flops=count_flops(hlo) * devices,
        compiler_flops=int(compiled.cost_analysis().get("flops", 0)) * devices if compiled else 0,
        collectives={
            kind: Traffic(traffic.count * devices, traffic.sent_bytes * devices)
            for kind, traffic in count_collectives(hlo).items()
        },
        images=images,
        predicted=predict_time(hlo, topology, peak, [device.coords for device in mesh.devices.flat])
        if compiled
        else None,
        trace_seconds=round(lowered_at - begin, 1),
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
    used = re.search(r"(?:Used|temporaries) \(?([\d.]+)([KMGT])\)? (?:of|exceeds)", message)
    return round(float(used[1]) * 1024 ** ("KMGT".index(used[2]) + 1)) if used else None
