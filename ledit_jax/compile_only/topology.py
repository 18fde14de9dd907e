"""TPU slices by name, v5e:4x4 for example, described by libtpu with no TPU present."""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from ledit_jax.errors import ConfigError, nearest


@dataclasses.dataclass(frozen=True)
class Generation:
    """A TPU generation, by chip."""

    accelerator: str
    """What libtpu calls it, in TPU_ACCELERATOR_TYPE."""
    dimensions: int
    """Of its interconnect: a slice is XxY or XxYxZ chips."""
    hbm_gib: float
    """What a program may use of the HBM, as the compiler says when it refuses one."""
    clock_ghz: float
    """Of the matrix units: what makes bfloat16 products at full load the data sheet's peak. The compiler's cycles are
    of this clock."""
    hbm_gb_per_second: float
    """Data sheet."""
    link_gb_per_second: float
    """Of one link to a neighbour, one way: the data sheet's sum over both ways and all links, shared out."""
    largest_side: int | None = None
    """In chips; beyond it the compiler aborts."""
    devices_per_chip: int = 1
    options: tuple[tuple[str, Any], ...] = ()
    """What libtpu needs beside the name."""


GENERATIONS = {
    # Two cores that jax drives as one device.
    "v4": Generation("v4", 3, 30.75, 1.05, 1228.0, 50.0, options=(("chip_config_name", "megacore"),)),
    "v5e": Generation("v5litepod", 2, 15.75, 1.5, 819.0, 50.0, largest_side=16),
    "v5p": Generation("v5p", 3, 95.74, 1.75, 2765.0, 100.0),
    "v6e": Generation("v6e", 2, 31.25, 1.75, 1640.0, 100.0, largest_side=16),
    # Two chiplets, and jax sees each as a device.
    "tpu7x": Generation("tpu7x", 3, 189.5, 2.2, 7380.0, 100.0, devices_per_chip=2),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: its name, its generation, how many chips it has and along which sides."""

    name: str
    generation: Generation
    sides: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.sides)

    def wraps_around(self, dimension: int) -> bool:
        """Whether the last chip along a dimension is the first one's neighbour: of a whole side of a two-dimensional
        pod, and of multiples of four chips where there are three dimensions."""
        whole = self.generation.largest_side or 4
        return self.sides[dimension] % whole == 0


def parse_topology(name: str) -> Topology:
    """The slice called GENERATION:SIDES, as in v5e:4x4 or v5p:4x4x4. Raises ConfigError for any other name."""
    known = ", ".join(GENERATIONS)
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    if not match:
        raise ConfigError(
            f"compile_only={name} is no topology: use GENERATION:SIDES, as in v5e:4x4 or v5p:4x4x4 ({known})"
        )
    if match[1] not in GENERATIONS:
        raise ConfigError(
            f"compile_only={name}: TPU generation {match[1]} is unknown: {nearest(match[1], GENERATIONS)}"
        )
    generation, sides = GENERATIONS[match[1]], tuple(map(int, match[2].split("x")))
    if len(sides) != generation.dimensions or min(sides) < 1:
        example = f"{match[1]}:{'x'.join('4' * generation.dimensions)}"
        raise ConfigError(
            f"compile_only={name}: a slice of {match[1]} has {generation.dimensions} sides, as in {example}"
        )
    if generation.largest_side and max(sides) > generation.largest_side:
        whole = f"{match[1]}:{'x'.join([str(generation.largest_side)] * generation.dimensions)}"
        raise ConfigError(f"compile_only={name}: a pod of {match[1]} is {whole} at most; for more chips v5p, or v4")
    if math.prod(sides) > 1 and any(side % 2 for side in sides[:2]):
        raise ConfigError(
            f"compile_only={name}: hosts hold 2x2 chips, so that the first two sides are even (or all of them 1)"
        )
    return Topology(name, generation, sides)


def has_tpu_compiler() -> bool:
    """Whether libtpu is there: installed, or a file that TPU_LIBRARY_PATH names, which jax reads too."""
    return importlib.util.find_spec("libtpu") is not None or os.path.isfile(os.environ.get("TPU_LIBRARY_PATH", ""))


def describe_devices(topology: Topology) -> list[jax.Device]:
    """The slice's devices, to compile for. Raises ConfigError if libtpu is missing or does not know the slice."""
    if not has_tpu_compiler():
        raise ConfigError(f"compile_only={topology.name} needs the TPU compiler: pip install {_libtpu_requirement()!r}")
    _keep_off_hardware(topology)
    options = dict(topology.generation.options)
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(topologies.get_topology_desc(topology.name, "tpu", **options).devices)
    except Exception as error:  # libtpu raises several kinds, with its own text
        raise ConfigError(f"compile_only={topology.name}: libtpu refuses it: {error}") from error


def _keep_off_hardware(topology: Topology) -> None:
    """Settings that libtpu reads once: look for no TPU, ask no metadata server, share no lock file."""
    cores = topology.chips * (2 if topology.generation.accelerator in ("v4", "v5p") else 1)
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": f"{topology.generation.accelerator}-{cores}",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    jax.config.update("jax_platforms", "cpu")


def _libtpu_requirement() -> str:
    """The libtpu that the installed jax was made for."""
    wanted = [line.split(";")[0] for line in importlib.metadata.requires("jax") or () if line.startswith("libtpu")]
    return wanted[0].strip() if wanted else "libtpu"
