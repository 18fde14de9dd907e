"""Sharding: bad meshes are named, every parameter has a rule that fits, and eight devices train like one."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny import network_of, tiny_config, tiny_mmdit, with_train

from ledit_jax.config import AutoencoderConfig, Config, DataConfig, MeshConfig, model_preset
from ledit_jax.errors import ConfigError
from ledit_jax.models.functional import abstract_params
from ledit_jax.parallel.mesh import AXES, data_mesh, make_mesh
from ledit_jax.parallel.sharding import batch_share, check_divisibility, shardings


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
    mesh = fake_mesh((2, 4, 3))
    with pytest.raises(ConfigError, match=r"train\.batch_size=12 .* is not a multiple of .* 8"):
        check_divisibility(with_train(tiny_config(), batch_size=12), mesh)
    with pytest.raises(ConfigError, match=r"model\.width=16 is not a multiple of mesh\.tensor=3"):
        check_divisibility(tiny_config(), mesh)


@pytest.mark.parametrize(
    "config",
    [tiny_config(model=dict(post_norm=True)), tiny_config(model=dict(block="fit")), tiny_mmdit()],
    ids=["dit", "fit", "mmdit"],
)
def test_every_large_parameter_is_split(config):
    params = abstract_params(network_of(config))
    shapes = dict(jax.tree_util.tree_leaves_with_path(params))
    for path, sharding in jax.tree_util.tree_leaves_with_path(shardings(make_mesh(MeshConfig()), params)):
        name = "/".join(key.key for key in path)
        assert len(sharding.spec) <= len(shapes[path].shape)
        is_matrix = name.endswith(("kernel", "embedding")) and name != "final_layer/linear/kernel"
        if is_matrix:
            assert any(axis is not None for axis in sharding.spec), name


def fake_mesh(sizes: tuple[int, int, int], devices_per_process: int = 1) -> Mesh:
    """A mesh over devices that are not there, `devices_per_process` of them in each process."""
    devices = np.empty(math.prod(sizes), object)
    for i in range(devices.size):
        devices[i] = SimpleDevice(i, i // devices_per_process)
    return Mesh(devices.reshape(sizes), AXES)


@dataclasses.dataclass(frozen=True)
class SimpleDevice:
    id: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"


@pytest.mark.parametrize("family", ["LEDiT", "DiT", "NoPE", "Learnable", "RoPE", "LookHere", "FiTBlock"])
@pytest.mark.parametrize("size", ["S", "B", "L", "XL"])
def test_every_preset_has_a_rule_for_what_is_large(family, size):
    for patch_size in (2, 8):
        data = DataConfig(source="latents", image_height=512, image_width=512)
        model, autoencoder = model_preset(f"{family}-{size}/{patch_size}"), AutoencoderConfig(kind="sd")
        params = abstract_params(network_of(Config(model=model, data=data, autoencoder=autoencoder)))
        for mesh in (fake_mesh((1, 8, 1)), fake_mesh((2, 2, 2))):
            for leaf, place in zip(jax.tree.leaves(params), jax.tree.leaves(shardings(mesh, params)), strict=True):
                part = math.prod(place.shard_shape(leaf.shape))
                assert math.prod(leaf.shape) < 2**20 or part < math.prod(leaf.shape)


def test_a_large_array_that_no_rule_matches_is_named():
    large, small = jax.ShapeDtypeStruct((2**10, 2**10), "float32"), jax.ShapeDtypeStruct((2**20 - 1,), "float32")
    params = {"pooled_embed": {"kernel": large, "bias": small}}
    for sizes in [(1, 2, 1), (1, 1, 2)]:
        with pytest.raises(ConfigError, match=r"pooled_embed/kernel \(1024, 1024\) .* ledit_jax/parallel/sharding.py"):
            shardings(fake_mesh(sizes), params)
    for mesh in (fake_mesh((8, 1, 1)), data_mesh(jax.devices()[:1])):
        assert all(place.is_fully_replicated for place in jax.tree.leaves(shardings(mesh, params)))
    assert shardings(fake_mesh((1, 2, 1)), {"bias": small})["bias"].is_fully_replicated


@pytest.mark.parametrize(
    "sizes, devices_per_process, expected",
    [
        ((1, 8, 1), 4, [(0, 2), (1, 2)]),
        ((1, 1, 2), 1, [(0, 1), (0, 1)]),
        ((2, 1, 2), 1, [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ((2, 1, 2), 2, [(0, 2), (1, 2)]),
        ((2, 2, 8), 4, [(0, 4), (0, 4), (1, 4), (1, 4), (2, 4), (2, 4), (3, 4), (3, 4)]),
    ],
)
def test_processes_with_the_same_samples_have_the_same_share(sizes, devices_per_process, expected):
    mesh = fake_mesh(sizes, devices_per_process)
    assert [batch_share(mesh, index) for index in range(len(expected))] == expected


def test_a_batch_that_processes_cannot_share_evenly_is_refused():
    mesh = fake_mesh((2, 1, 6), 4)
    for index in range(3):
        with pytest.raises(ConfigError, match="use a mesh.tensor that divides 4 or is a multiple of it"):
            batch_share(mesh, index)


def test_an_array_that_the_mesh_does_not_divide_is_named():
    # SwiGLU makes it two thirds of 16.
    params = abstract_params(network_of(tiny_config(model=dict(block="fit", mlp_ratio=1.0))))
    mesh = fake_mesh((1, 1, 4))
    with pytest.raises(ConfigError, match=r"mesh.tensor=4 does not divide 10, a side of blocks/mlp/fc1/"):
        shardings(mesh, params)
