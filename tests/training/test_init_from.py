"""Weights of a checkpoint onto a mesh: each device reads its part, and the values are those of whole arrays."""

import dataclasses
import gc
import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from launch import Launch
from script_runs import ROOT
from tiny import network_of, noisy_params, tiny_config

from ledit_jax.errors import CheckpointError
from ledit_jax.models.functional import init_params
from ledit_jax.models.tables import resize_table
from ledit_jax.training.init_from import init_from_checkpoint
from ledit_jax.weights import export_weights, load_weights, stored

# Eight devices, of one process or of two: in processes of their own, since their number is fixed when jax starts.
ON_A_MESH = """
import pathlib, sys
sys.path.append("ROOT/tests/training")
import jax, numpy as np
from test_init_from import arms, flat, merged_by_hand
from ledit_jax.config import MeshConfig
from ledit_jax.parallel.mesh import make_mesh
from ledit_jax.parallel.processes import gather, start_processes
from ledit_jax.parallel.sharding import shardings
from ledit_jax.training.init_from import init_from_checkpoint
from ledit_jax.weights import load_weights

def check(params, expected, case):
    assert flat(params).keys() == expected.keys()
    for name, array in flat(params).items():
        np.testing.assert_array_equal(gather(array), expected[name], err_msg=f"{case} {name}")
        assert array.sharding == flat(shardings(mesh, params))[name], name

if __name__ == "__main__":
    checkpoint, names, address, index = sys.argv[1:]
    start_processes(*((address, 2, int(index)) if address else ()), timeout=200)
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    whole, _, _ = load_weights(checkpoint)
    params, _, step = load_weights(checkpoint, mesh=mesh)
    assert step == 7
    check(params, flat(whole), "as it is")
    kernel = params["blocks"]["mlp"]["fc1"]["kernel"]
    rows = [f"{kernel.shape} {set(shard.data.shape for shard in kernel.addressable_shards)}"]
    for arm in names.split(","):
        config = arms()[arm]
        params, report = init_from_checkpoint(checkpoint, config, jax.random.key(3), mesh)
        check(params, merged_by_hand(whole, config, jax.random.key(3)), arm)
        rows.append(f"{arm} {len(report.loaded)} {len(report.initialised)}")
    # Into a file: what the processes print, other threads write into.
    pathlib.Path(__file__).with_name(f"rows-{index}").write_text("\\n".join(rows))
""".replace("ROOT", str(ROOT))


def flat(params):
    return flatten_dict(params, sep="/")


def source_config():
    return tiny_config("Learnable", model=dict(scan_layers=True))


def arms():
    """Configs that differ from the checkpoint's by a convolution, by their classes, and by their size."""
    source = source_config()
    larger = dataclasses.replace(source.data, image_height=16, image_width=12)
    return {
        "ledit": tiny_config(model=dict(scan_layers=True, block_order="sa", conv_init="xavier")),
        "classes": dataclasses.replace(source, model=dataclasses.replace(source.model, num_classes=12)),
        "larger": dataclasses.replace(source, data=larger),
    }


def merged_by_hand(source, config, key):
    """What a run starts from, made of whole arrays on one device."""
    old, merged = flat(source), flat(init_params(network_of(config), key))
    for name, array in merged.items():
        if name in old and old[name].shape == array.shape:
            merged[name] = old[name]
    if "position_table" in merged:
        merged["position_table"] = resize_table(old["position_table"], merged["position_table"].shape[:2])
    return merged


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "c"
    export_weights(folder, noisy_params(source_config()), source_config(), step=7)
    return folder


@pytest.mark.parametrize("count, names", [(1, "ledit,classes"), (2, "larger")])
def test_weights_go_straight_to_their_places_on_a_mesh(checkpoint, tmp_path, count, names):
    Launch(ON_A_MESH, tmp_path, "log", checkpoint, names, count=count, devices=8 // count).run_to_the_end()
    counts = {"ledit": "21 2", "classes": "21 1", "larger": "22 0"}
    for index in range(count):
        rows = (tmp_path / f"rows-{index}").read_text().splitlines()
        assert rows == ["(2, 16, 64) {(2, 4, 32)}", *(f"{name} {counts[name]}" for name in names.split(","))]


@pytest.mark.parametrize("arm", ["ledit", "classes", "larger"])
def test_without_a_mesh_they_go_to_the_first_device(checkpoint, arm):
    config, key = arms()[arm], jax.random.key(3)
    params, _ = init_from_checkpoint(checkpoint, config, key)
    expected = merged_by_hand(load_weights(checkpoint)[0], config, key)
    assert flat(params).keys() == expected.keys()
    for name, array in flat(params).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
        assert array.devices() == {jax.devices()[0]}


def test_what_is_dropped_is_not_read(checkpoint, monkeypatch):
    read, real = [], stored._ArrayReader.deserialize

    async def deserialize(self, infos, args=None):
        read.extend(info.name for info in infos)
        return await real(self, infos, args)

    monkeypatch.setattr(stored._ArrayReader, "deserialize", deserialize)
    _, report = init_from_checkpoint(checkpoint, arms()["ledit"], jax.random.key(0))
    assert report.dropped == ("position_table",)
    assert len(read) == 21 and "position_table" not in read


def test_a_damaged_checkpoint_leaves_nothing_behind(checkpoint, tmp_path, capfd):
    """Reads of the other arrays are under way when the first of them fails; none of them speaks later on."""
    folder = tmp_path / "c"
    export_weights(folder, noisy_params(source_config()), source_config(), step=7)
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    hook = sys.unraisablehook
    for _ in range(2):
        with pytest.raises(CheckpointError, match="c/7 is damaged .*: use another one"):
            load_weights(folder)
        gc.collect(1)  # what this test made is young
    assert sys.unraisablehook is hook
    assert capfd.readouterr() == ("", "")
