"""TPU chips that are not there, to compile for: what jax's ahead-of-time compiler needs of libtpu, and no more."""

import os

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # libtpu would ask a cloud server which machine this is
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def tpu_mesh(topology: str, shape: tuple[int, int, int] = (1, 1, 1)) -> Mesh:
    """A (data, fsdp, tensor) mesh over the chips of a topology such as "v5e:1x1" or "v6e:2x2", all on one host.

    Needs the package libtpu (RuntimeError without it), and neither a TPU nor a network.
    """
    name, _, sizes = topology.partition(":")
    bounds = [int(size) for size in sizes.split("x")]
    accelerator = {"v5e": "v5litepod"}.get(name, name)
    os.environ.update(_ENVIRONMENT | {"TPU_ACCELERATOR_TYPE": f"{accelerator}-{np.prod(bounds)}"})
    bounds += [1] * (3 - len(bounds))
    devices = topologies.get_topology_desc(
        platform="tpu", topology_name=topology, chips_per_host_bounds=tuple(bounds)
    ).devices
    return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def place(tree, sharding: jax.sharding.NamedSharding):
    """The abstract arrays of `tree`, on the mesh of `sharding`."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)
