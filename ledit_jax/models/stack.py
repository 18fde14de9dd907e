"""A stack of equal blocks: their parameters along a leading axis, and `lax.scan` over the order's repeating unit."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree

from ledit_jax.config import ModelConfig
from ledit_jax.parallel.placement import split_batch

Segment = tuple[tuple[str, ...], int]
"""(repeating unit, repeats), see `ledit_jax.config.attention_kinds`."""
RunBlock = Callable[[str, PyTree, PyTree, PyTree], tuple[PyTree, Any]]
"""run_block(attention kind, the layer's parameters, x, what all layers are told) -> (x, what to keep of the layer)."""

_REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def stack_blocks(make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs) -> nnx.Module:
    """One module as `make` makes it, whose parameters are those of `depth` such, stacked along a new leading axis."""
    stacked = jax.vmap(lambda key: nnx.split(make(nnx.Rngs(key))))
    return nnx.merge(*stacked(jax.random.split(rngs.params(), depth)))


def run_stack(
    run_block: RunBlock,
    segments: Iterable[Segment],
    layers: PyTree,
    x: PyTree[Array],
    told: PyTree,
    config: ModelConfig,
    keep: bool = False,
) -> tuple[PyTree[Array], PyTree | None]:
    """(output of the last block, what every block kept along a leading axis if `keep`).

    layers: parameters with a leading axis of as many layers as the segments have. Each segment's repeating unit runs
    in turn, so that every attention kind keeps a static mask.
    """
    run_block = rematerialised(run_block, config, is_scanned=config.scan_layers)
    kept, start = [], 0
    for unit, repeats in segments:
        stop = start + len(unit) * repeats
        units = jax.tree.map(lambda p: p[start:stop].reshape(repeats, -1, *p.shape[1:]), layers)  # noqa: B023
        start = stop

        def run_unit(x, layers, unit=unit):
            outputs = []
            for i, kind in enumerate(unit):
                x, output = run_block(kind, _slice(layers, i), x, told)
                x = jax.tree.map(split_batch, x)
                outputs.append(output)
            return x, outputs

        if config.scan_layers:
            x, outputs = jax.lax.scan(run_unit, x, units)
            kept += [_slice(outputs, i)[j] for i in range(repeats) for j in range(len(unit))] if keep else []
        else:
            for i in range(repeats):
                x, outputs = run_unit(x, _slice(units, i))
                kept += outputs
    return x, jax.tree.map(lambda *layers: jnp.stack(layers), *kept) if keep else None


def rematerialised(run_block: RunBlock, config: ModelConfig, is_scanned: bool) -> RunBlock:
    """The same, recomputed in the backward pass as `model.remat` says. is_scanned: whether it is the body of a scan."""
    if config.remat == "none":
        return run_block
    policy = _REMAT_POLICIES[config.remat]
    return jax.checkpoint(run_block, policy=policy, prevent_cse=not is_scanned, static_argnums=0)


def _slice(tree: PyTree[Array], index: int) -> PyTree[Array]:
    return jax.tree.map(lambda a: a[index], tree)
