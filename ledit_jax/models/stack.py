"""A stack of equal blocks: their parameters along a leading axis, and `lax.scan` over the order's repeating unit."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree

from ledit_jax.config import ModelConfig
from ledit_jax.models.functional import round_for_products
from ledit_jax.models.linear import PRODUCT
from ledit_jax.models.norm import STATISTICS
from ledit_jax.parallel.placement import gather_weights, split_batch

Segment = tuple[tuple[str, ...], int]
"""(repeating unit, repeats), see `ledit_jax.config.attention_kinds`."""
RunBlock = Callable[[str, PyTree, PyTree, PyTree], tuple[PyTree, Any]]
"""run_block(attention kind, the layer's parameters, x, what all layers are told) -> (x, what to keep of the layer)."""

RunLayer = Callable[[str, int | None, PyTree, PyTree, PyTree], tuple[PyTree, Any]]
"""run_layer(attention kind, index, layers, x, told): a block with the parameters of one of `layers`; None: `layers` are
one's."""

_REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT, STATISTICS),
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
    in_place: bool = False,
) -> tuple[PyTree[Array], PyTree | None]:
    """(output of the last block, what every block kept along a leading axis if `keep`).

    layers: parameters with a leading axis of as many layers as the segments have. Each segment's repeating unit runs
    in turn, so that every attention kind keeps a static mask. in_place: a scan reads each layer where it lies, which
    saves a copy of all weights, and whose gradient would add up the whole stack once a layer.
    """
    run_layer = rematerialised(run_block, config, is_scanned=config.scan_layers)
    # Rounded once for all that read them, before they travel; gradients are rounded like that anyway.
    layers = round_for_products(layers, config.dtype)
    if config.scan_layers:
        x, kept = _run_scanned(run_layer, segments, layers, x, told, in_place)
    else:
        x, kept = _run_unrolled(run_layer, segments, layers, x, told)
    return x, jax.tree.map(lambda *outputs: jnp.stack(outputs), *kept) if keep else None


def _run_scanned(run_layer, segments, layers, x, told, in_place: bool) -> tuple[PyTree[Array], list]:
    kept, start = [], 0
    for unit, repeats in segments:
        stop = start + len(unit) * repeats
        if in_place:
            turns = jnp.arange(start, stop, len(unit))
        else:
            turns = jax.tree.map(lambda p: p[start:stop].reshape(repeats, -1, *p.shape[1:]), layers)  # noqa: B023
        start = stop

        def run_unit(x, turn, unit=unit):
            outputs = []
            for i, kind in enumerate(unit):
                chosen = (None, _read(layers, turn + i)) if in_place else (i, turn)
                x, output = run_layer(kind, *chosen, x, told)
                x = jax.tree.map(split_batch, x)
                outputs.append(output)
            return x, outputs

        x, outputs = jax.lax.scan(run_unit, x, turns)
        kept += [_slice(outputs, i)[j] for i in range(repeats) for j in range(len(unit))]
    return x, kept


def _run_unrolled(run_layer, segments, layers, x, told) -> tuple[PyTree[Array], list]:
    kinds, kept = [kind for unit, repeats in segments for kind in unit * repeats], []
    for kind, layer in zip(kinds, _unstack(layers, len(kinds)), strict=True):
        x, output = run_layer(kind, None, layer, x, told)
        x = jax.tree.map(split_batch, x)
        kept.append(output)
    return x, kept


def rematerialised(run_block: RunBlock, config: ModelConfig, is_scanned: bool) -> RunLayer:
    """`run_block`, recomputed in the backward pass as `model.remat` says. is_scanned: whether it is the body of a scan.

    What is recomputed begins with taking a layer's weights from those of its unit, and gathering them: a scan keeps for
    the backward pass whatever else has been made of them, which would be a second copy of all weights. With nothing
    recomputed they stay split, for that reason.
    """

    def run_layer(kind, index, layers, x, told):
        layer = layers if index is None else _slice(layers, index)
        return run_block(kind, layer if config.remat == "none" else gather_weights(layer), x, told)

    if config.remat == "none":
        return run_layer
    policy = _REMAT_POLICIES[config.remat]
    return jax.checkpoint(run_layer, policy=policy, prevent_cse=not is_scanned, static_argnums=(0, 1))


def _slice(tree: PyTree[Array], index: int) -> PyTree[Array]:
    return jax.tree.map(lambda a: a[index], tree)


def _read(tree: PyTree[Array], index: Array) -> PyTree[Array]:
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), tree)


def _unstack(tree: PyTree[Array], count: int) -> list[PyTree[Array]]:
    """One tree for each layer. Indexing would do, but its gradient pads every layer's to the whole stack and adds them;
    that of `lax.split` puts them side by side."""
    leaves, treedef = jax.tree.flatten(tree)
    parts = [jax.lax.split(leaf, (1,) * count) for leaf in leaves]
    return [jax.tree.unflatten(treedef, [part.squeeze(0) for part in layer]) for layer in zip(*parts, strict=True)]
