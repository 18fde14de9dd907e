"""Where arrays live on the mesh: one table from parameter names to how they are split, and who holds which samples.

XLA's partitioner does the rest. Parameters, their EMA and the optimiser's moments share names, so they share rules.
"""

import math
import re
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ledit_jax.config import Config
from ledit_jax.errors import ConfigError
from ledit_jax.parallel.mesh import BATCH_AXES, FSDP, TENSOR

# First match wins; a parameter of the stacked blocks has the layers as its leading axis. Kernels are split over
# fsdp on one side and over tensor on the other, columns first and rows next, so that a pair of them needs one
# reduction. What no rule matches stays whole, and so has to be small.
_RULES: tuple[tuple[str, P], ...] = (
    (r"blocks/((text|image)/)?(attn/qkv|mlp/fc1|mlp/gate|adaln|adaln/down)/kernel", P(None, FSDP, TENSOR)),
    (r"blocks/((text|image)/)?(attn/proj|mlp/fc2|adaln/up)/kernel", P(None, TENSOR, FSDP)),
    (r"blocks/((text|image)/)?(attn/qkv|mlp/fc1|mlp/gate|adaln|adaln/down)/bias", P(None, TENSOR)),
    (r"last_block/(text|image)/(attn/qkv|mlp/fc1|adaln)/kernel", P(FSDP, TENSOR)),
    (r"last_block/(text|image)/(attn/proj|mlp/fc2)/kernel", P(TENSOR, FSDP)),
    (r"last_block/(text|image)/(attn/qkv|mlp/fc1|adaln)/bias", P(TENSOR)),
    (r"(final_layer/adaln|shared_adaln|timestep_embed/fc2)/kernel", P(FSDP, TENSOR)),
    (r"(patch_embed|timestep_embed/fc1|text_embed)/kernel|label_embed/embedding", P(None, FSDP)),
    (r"conv/kernel", P(None, None, None, FSDP)),
    (r"position_table", P(None, None, FSDP)),
)
_LARGE = 2**20
"""Elements from which on an array must have a rule, where weights are split."""


def check_divisibility(config: Config, mesh: Mesh) -> None:
    """Raises ConfigError if the mesh does not divide the batch or the network's width."""
    ways = _batch_ways(mesh)
    micro_batch = config.train.batch_size // config.train.accumulation_steps
    if micro_batch % ways:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} / train.accumulation_steps={config.train.accumulation_steps} "
            f"is not a multiple of mesh.data x mesh.fsdp = {ways}: use a multiple of "
            f"{ways * config.train.accumulation_steps}"
        )
    for axis in (FSDP, TENSOR):
        if config.model.width % mesh.shape[axis]:
            raise ConfigError(f"model.width={config.model.width} is not a multiple of mesh.{axis}={mesh.shape[axis]}")


def shardings(mesh: Mesh, tree: Any) -> Any:
    """NamedSharding for each leaf of a tree of (abstract) arrays: parameters, or a train state that holds some.

    On a mesh without the axes fsdp and tensor (`data_mesh`) all are whole. Raises ConfigError for an array that the
    mesh does not divide, and for a large one that no rule matches.
    """
    has_axes = {FSDP, TENSOR} <= set(mesh.axis_names)
    is_split = has_axes and mesh.shape[FSDP] * mesh.shape[TENSOR] > 1

    def rule(path, leaf) -> NamedSharding:
        name = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        rules = (spec for pattern, spec in _RULES if re.search(pattern, name))
        # Counters beside the parameters (an optimiser's step) have no rule, or fewer axes than it.
        spec = next((spec for spec in rules if len(spec) <= len(leaf.shape)), None)
        if spec is None and is_split and math.prod(leaf.shape) >= _LARGE:
            raise ConfigError(
                f"{name} {leaf.shape} is large and would lie whole on every device, since no rule says how to split "
                "it: add one to the table in ledit_jax/parallel/sharding.py"
            )
        if spec is None or not has_axes:
            return NamedSharding(mesh, P())
        for side, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and side % mesh.shape[axis]:
                raise ConfigError(
                    f"mesh.{axis}={mesh.shape[axis]} does not divide {side}, a side of {name} {leaf.shape}: "
                    f"use a mesh.{axis} that does"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(rule, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split along their first axis, over data and (where the mesh has it) fsdp."""
    return NamedSharding(mesh, P(tuple(axis for axis in BATCH_AXES if axis in mesh.axis_names)))


def batch_share(mesh: Mesh, process_index: int | None = None) -> tuple[int, int]:
    """(index, count) of the equal parts of a batch: which one a process (this one by default) loads, and of how many.

    Processes whose devices hold the same samples, as those do that a tensor axis spans, have the same part and must
    load the same samples. Raises ConfigError, in every process, for a mesh whose processes hold unequal parts.
    """
    ways = _batch_ways(mesh)
    held: dict[int, set[int]] = {}
    for device, (part,) in batch_sharding(mesh).devices_indices_map((ways,)).items():
        held.setdefault(device.process_index, set()).add(part.start or 0)
    shares = sorted({tuple(sorted(parts)) for parts in held.values()})
    if len({len(share) for share in shares}) > 1 or sum(map(len, shares)) != ways:
        shown = ", ".join(f"mesh.{axis}={size}" for axis, size in mesh.shape.items())
        per_process = mesh.size // len(held)
        raise ConfigError(
            f"{shown}: the batch does not fall into equal parts for the {len(held)} processes of {per_process} devices "
            f"each: use a mesh.{TENSOR} that divides {per_process} or is a multiple of it"
        )
    own = held[jax.process_index() if process_index is None else process_index]
    return shares.index(tuple(sorted(own))), len(shares)


def _batch_ways(mesh: Mesh) -> int:
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES if axis in mesh.axis_names)
