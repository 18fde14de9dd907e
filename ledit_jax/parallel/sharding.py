"""Where arrays live: the device mesh, and one table from parameter names to how they are split over it.

XLA's partitioner does the rest. Parameters, their EMA and the optimiser's moments share names, so they share rules.
"""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ledit_jax.config import Config, MeshConfig
from ledit_jax.errors import ConfigError
from ledit_jax.parallel.placement import BATCH_AXES

AXES = ("data", "fsdp", "tensor")

# First match wins; a parameter of the stacked blocks has the layers as its leading axis. Kernels are split over
# fsdp on one side and over tensor on the other, columns first and rows next, so that a pair of them needs one
# reduction. What is small stays whole.
_RULES: tuple[tuple[str, P], ...] = (
    (r"blocks/(attn/qkv|mlp/fc1|mlp/gate|adaln|adaln/down)/kernel", P(None, "fsdp", "tensor")),
    (r"blocks/(attn/proj|mlp/fc2|adaln/up)/kernel", P(None, "tensor", "fsdp")),
    (r"blocks/(attn/qkv|mlp/fc1|mlp/gate|adaln|adaln/down)/bias", P(None, "tensor")),
    (r"(final_layer/adaln|shared_adaln|timestep_embed/fc2)/kernel", P("fsdp", "tensor")),
    (r"(patch_embed|timestep_embed/fc1)/kernel|label_embed/embedding", P(None, "fsdp")),
    (r"conv/kernel", P(None, None, None, "fsdp")),
    (r"", P()),
)


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Mesh with axes data, fsdp and tensor. Raises ConfigError if the sizes do not multiply to the device count."""
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(config, axis) for axis in AXES]
    shown = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise ConfigError(f"{shown}: sizes are positive, and at most one may be -1 (what is left of the devices)")
    known = int(np.prod([size for size in sizes if size != -1]))
    if len(devices) % known or (-1 not in sizes and known != len(devices)):
        raise ConfigError(f"{shown}: the sizes must multiply to the {len(devices)} devices there are")
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_divisibility(config: Config, mesh: Mesh) -> None:
    """Raises ConfigError if the mesh does not divide the batch or the network's width."""
    batch_ways = mesh.shape["data"] * mesh.shape["fsdp"]
    micro_batch = config.train.batch_size // config.train.accumulation_steps
    if micro_batch % batch_ways:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} / train.accumulation_steps={config.train.accumulation_steps} "
            f"is not a multiple of mesh.data x mesh.fsdp = {batch_ways}: use a multiple of "
            f"{batch_ways * config.train.accumulation_steps}"
        )
    for axis in ("fsdp", "tensor"):
        if config.model.width % mesh.shape[axis]:
            raise ConfigError(f"model.width={config.model.width} is not a multiple of mesh.{axis}={mesh.shape[axis]}")


def shardings(mesh: Mesh, tree: Any) -> Any:
    """NamedSharding for each leaf of a tree of (abstract) arrays: parameters, or a train state that holds some.

    Raises ConfigError for an array that the mesh does not divide.
    """

    def rule(path, leaf) -> NamedSharding:
        name = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        spec = next(spec for pattern, spec in _RULES if re.search(pattern, name))
        for side, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and side % mesh.shape[axis]:
                raise ConfigError(
                    f"mesh.{axis}={mesh.shape[axis]} does not divide {side}, a side of {name} {leaf.shape}: "
                    f"use a mesh.{axis} that does"
                )
        # Counters beside the parameters (an optimiser's step) match no pattern but the last.
        return NamedSharding(mesh, spec if len(spec) <= len(leaf.shape) else P())

    return jax.tree_util.tree_map_with_path(rule, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split over data and fsdp along their first axis."""
    return NamedSharding(mesh, P(BATCH_AXES))
