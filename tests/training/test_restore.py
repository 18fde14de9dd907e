"""Checkpoints: which are kept, and a run that goes on over another mesh."""

import json

import numpy as np
from launch import run_on_eight_devices
from tiny import tiny_config, with_train

from ledit_jax.training.loop import train

# In a process of its own, since the number of CPU devices is fixed when jax starts.
TWO_MESHES = """
import dataclasses, sys
from tiny import tiny_config, with_train
from ledit_jax.config import MeshConfig
from ledit_jax.training.loop import train
train_settings = dict(num_steps=6, checkpoint_every=100, dilation_probability=0.0)
config = tiny_config(model=dict(remat="dots"), train=train_settings)  # with which weights are gathered over fsdp
by_data = dataclasses.replace(config, mesh=MeshConfig(data=2, fsdp=4))
by_model = dataclasses.replace(config, mesh=MeshConfig(data=1, fsdp=4, tensor=2))
train(by_data, sys.argv[1] + "/whole")
train(with_train(by_data, num_steps=3), sys.argv[1] + "/moved")
state = train(by_model, sys.argv[1] + "/moved")
for tree in (state.params, state.ema, state.opt_state[1][0].mu):
    kernel = tree["blocks"]["mlp"]["fc1"]["kernel"]
    print(kernel.sharding.shard_shape(kernel.shape), tuple(kernel.sharding.spec))
"""


def test_eight_devices_train_like_one_and_a_run_over_data_and_fsdp_goes_on_over_tensor(tmp_path):
    out = run_on_eight_devices(TWO_MESHES, tmp_path, tmp_path)
    assert out.split("\n")[:3] == ["(2, 4, 32) (None, 'fsdp', 'tensor')"] * 3
    train(tiny_config(train=dict(num_steps=6, dilation_probability=0.0)), tmp_path / "one")

    def losses(name):
        rows = [json.loads(row) for row in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
        return np.array([row["loss"] for row in rows])

    for name in ("whole", "moved"):
        np.testing.assert_allclose(losses(name), losses("one"), rtol=1e-5)
    assert [start["step"] for start in json.loads((tmp_path / "moved" / "run.json").read_text())] == [0, 3]


def test_the_last_k_and_every_mth_are_kept(tmp_path):
    train(with_train(tiny_config(), num_steps=12, checkpoint_every=2, keep_last=2, keep_every=4), tmp_path)
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 8, 10, 12]
