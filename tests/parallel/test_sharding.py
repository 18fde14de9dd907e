"""Sharding: bad meshes are named, every parameter has a rule that fits, and eight devices train like one."""

import json

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny import network_of, run_on_eight_devices, tiny_config, with_train

from ledit_jax.config import MeshConfig
from ledit_jax.errors import ConfigError
from ledit_jax.models.functional import abstract_params
from ledit_jax.parallel.sharding import AXES, check_divisibility, make_mesh, shardings

# Run in a process of its own, since the number of CPU devices is fixed when jax starts.
EIGHT_DEVICES = """
import dataclasses, sys
import jax, numpy as np
from tiny import tiny_config
from ledit_jax.config import MeshConfig
from ledit_jax.training.loop import train
for name, devices in [("one", [1, 1, 1]), ("data", [8, 1, 1]), ("fsdp_tensor", [1, 4, 2])]:
    mesh = MeshConfig(*devices)
    config = dataclasses.replace(tiny_config(train=dict(num_steps=3, dilation_probability=0.0)), mesh=mesh)
    import ledit_jax.training.loop as loop
    count = int(np.prod(devices))
    make = loop.make_mesh
    loop.make_mesh = lambda mesh: make(mesh, jax.devices()[:count])
    state = train(config, f"{sys.argv[1]}/{name}")
    loop.make_mesh = make
    kernel = state.params["blocks"]["mlp"]["fc1"]["kernel"]
    ema = state.ema["blocks"]["mlp"]["fc1"]["kernel"]
    print(name, kernel.sharding.shard_shape(kernel.shape), tuple(ema.sharding.spec))
"""


def test_eight_devices_train_like_one(tmp_path):
    out = run_on_eight_devices(EIGHT_DEVICES, tmp_path)
    assert "fsdp_tensor (2, 4, 32) (None, 'fsdp', 'tensor')" in out

    def losses(name):
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return np.array([json.loads(row)["loss"] for row in rows])

    assert len(losses("one")) == 3
    for name in ("data", "fsdp_tensor"):
        np.testing.assert_allclose(losses(name), losses("one"), rtol=1e-5)


@pytest.mark.parametrize(
    "mesh, message",
    [
        (MeshConfig(data=2), "mesh.data=2, mesh.fsdp=1, mesh.tensor=1: the sizes must multiply to the 1 devices"),
        (MeshConfig(data=-1, fsdp=3), "must multiply to the 1 devices"),
        (MeshConfig(data=-1, fsdp=-1), "at most one may be -1"),
        (MeshConfig(data=0), "sizes are positive"),
    ],
)
def test_meshes_that_cannot_be_are_named(mesh, message):
    with pytest.raises(ConfigError, match=message):
        make_mesh(mesh, jax.devices()[:1])


def test_batch_and_width_must_divide():
    # A mesh over copies of the one device there is: only its shape is looked at.
    mesh = Mesh(np.array(jax.devices()[:1] * 24).reshape(2, 4, 3), AXES)
    with pytest.raises(ConfigError, match=r"train\.batch_size=12 .* is not a multiple of .* 8"):
        check_divisibility(with_train(tiny_config(), batch_size=12), mesh)
    with pytest.raises(ConfigError, match=r"model\.width=16 is not a multiple of mesh\.tensor=3"):
        check_divisibility(tiny_config(), mesh)


@pytest.mark.parametrize("model", [dict(post_norm=True), dict(block="fit")], ids=["dit", "fit"])
def test_every_large_parameter_is_split(model):
    params = abstract_params(network_of(tiny_config(model=model)))
    shapes = dict(jax.tree_util.tree_leaves_with_path(params))
    for path, sharding in jax.tree_util.tree_leaves_with_path(shardings(make_mesh(MeshConfig()), params)):
        name = "/".join(key.key for key in path)
        assert len(sharding.spec) <= len(shapes[path].shape)
        is_matrix = name.endswith(("kernel", "embedding")) and name != "final_layer/linear/kernel"
        if is_matrix:
            assert any(axis is not None for axis in sharding.spec), name


def test_an_array_that_the_mesh_does_not_divide_is_named():
    # SwiGLU makes it two thirds of 16.
    params = abstract_params(network_of(tiny_config(model=dict(block="fit", mlp_ratio=1.0))))
    mesh = Mesh(np.array(jax.devices()[:1] * 4).reshape(1, 1, 4), AXES)
    with pytest.raises(ConfigError, match=r"mesh.tensor=4 does not divide 10, a side of blocks/mlp/fc1/"):
        shardings(mesh, params)
