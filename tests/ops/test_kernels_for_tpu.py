"""Attention's kernels in programs compiled for TPUs that are not there."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ledit_jax.compile_only.topology import describe_devices, has_tpu_compiler, parse_topology
from ledit_jax.config import MeshConfig
from ledit_jax.ops.attention import attention
from ledit_jax.parallel.mesh import make_mesh

pytestmark = pytest.mark.skipif(not has_tpu_compiler(), reason="there is no libtpu for this platform")


def compiled(topology, mesh_config, backend, dtype="bfloat16", spec=None, side=24, heads=(4, 72)):
    mesh = make_mesh(mesh_config, describe_devices(parse_topology(topology)))
    shape = 4, side * side, *heads
    array = jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec or P()))

    def loss(q, k, v):
        return attention(q, k, v, grid=(side, side), scan="d", backend=backend).astype(jnp.float32).sum()

    # As the training and the sampling programs have it.
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(array, array, array).compile()


def test_auto_puts_the_kernel_into_the_program():
    program = compiled("v5e:1x1", MeshConfig(), "auto", "float32", side=64).as_text()
    for kernel in ("splash_mha_fwd", "splash_mha_dkv"):
        assert kernel in program
    assert "4096,4096" not in program  # no logits, no mask


def test_dense_attention_has_no_kernel_and_all_logits():
    program = compiled("v5e:1x1", MeshConfig(), "xla").as_text()
    assert "splash_mha" not in program and "576,576" in program


def test_a_mesh_splits_the_kernel_of_short_sequences_and_gathers_nothing():
    spec = P(("data", "fsdp"), None, "tensor")
    program = compiled("v5e:2x2", MeshConfig(data=2, tensor=2), "splash", spec=spec, side=16).as_text()
    assert "short_mha_backward" in program and "splash_mha" not in program
    assert not any(name in program for name in ("all-gather", "all-to-all", "collective-permute"))


def test_a_short_sequence_fits_the_chips_fast_memory():
    """XL/2 at 512x512, which leaves least of 64 MiB; on a v4, with 16 MiB in all, it is not short at 256x256."""
    assert "short_mha" in compiled("v5p:1x1x1", MeshConfig(), "splash", side=32, heads=(16, 72)).as_text()
    spec = P(("data", "fsdp"))
    program = compiled("v4:2x2x1", MeshConfig(data=4), "splash", spec=spec, side=16, heads=(16, 72)).as_text()
    assert "short_mha" not in program and "splash_mha_dkv" in program
