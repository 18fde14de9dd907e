"""Where activations live on a device mesh: each device keeps its samples, and weights come to them.

Without this XLA is free to split activations by their features instead, as the weights are, and does: for XL/2 over
16 chips it then sends the activations of the whole batch around at every layer. And it multiplies by each device's part
of the weights in turn as these arrive, in pieces so thin that they fill half of a matrix unit.
"""

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree, Shaped

from ledit_jax.parallel.mesh import BATCH_AXES, FSDP, TENSOR


def split_batch(x: Shaped[Array, " B *rest"]) -> Shaped[Array, " B *rest"]:
    """x, its first axis split over BATCH_AXES and the others whole, under a mesh (`jax.sharding.use_abstract_mesh`).

    Without a mesh, or under one that lacks an axis, x as it is.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not set(BATCH_AXES) <= set(mesh.axis_names):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(BATCH_AXES)))


def gather_weights(weights: PyTree[Array]) -> PyTree[Array]:
    """Weights that are split over FSDP alone, whole on every device, and so are their gradients until they are summed.

    Without a mesh, or under one that splits weights over TENSOR too, the weights as they are.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.shape.get(FSDP, 1) == 1 or mesh.shape.get(TENSOR, 1) > 1:
        return weights
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P())), weights)
