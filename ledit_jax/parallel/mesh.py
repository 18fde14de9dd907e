"""The device mesh and the names of its axes, which are written here and nowhere else."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from ledit_jax.config import MeshConfig
from ledit_jax.errors import ConfigError

DATA, FSDP, TENSOR = AXES = ("data", "fsdp", "tensor")
"""DATA: copies of the weights, each with its part of the batch. FSDP: weights and batch are both split. TENSOR: only
the weights are, by their other side."""
BATCH_AXES = (DATA, FSDP)
"""Mesh axes that a batch is split over."""


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh with all three axes. Raises ConfigError if their sizes do not multiply to the number of devices."""
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(config, axis) for axis in AXES]
    shown = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise ConfigError(f"{shown}: sizes are positive, and at most one may be -1 (what is left of the devices)")
    known = math.prod(size for size in sizes if size != -1)
    if len(devices) % known or (-1 not in sizes and known != len(devices)):
        raise ConfigError(f"{shown}: the sizes must multiply to the {len(devices)} devices there are")
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    return _mesh(np.asarray(devices).reshape(sizes), AXES)


def data_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Mesh of the axis DATA alone: every device has whole weights and its part of each batch."""
    return _mesh(np.asarray(devices), (DATA,))


def _mesh(devices: np.ndarray, axes: tuple[str, ...]) -> Mesh:
    # Auto, and said so: jax's default is not the same in every version.
    return Mesh(devices, axes, axis_types=(AxisType.Auto,) * len(axes))
