"""The sweep over a run's checkpoints: which there are, the table as it grows, and what the configs keep."""

import importlib
import json

import jax
import pytest
from tiny import network_of, tiny_config

from experiments.steps import find_steps, steps_table
from experiments.sweep import sweep_steps
from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.evaluation.suite import Metrics
from ledit_jax.models import init_params
from ledit_jax.weights import export_weights

CASE = ((8, 8), 1.5)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A workdir with checkpoints of steps 2, 10 and 4."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config("NoPE")
    params = init_params(network_of(config), jax.random.key(0))
    (folder / "checkpoints").mkdir()
    for step in (2, 10, 4):
        export_weights(folder / f"made-{step}", params, config, step)
        (folder / f"made-{step}" / str(step)).rename(folder / "checkpoints" / str(step))
    return folder


def test_steps_by_name_or_all(run_folder):
    assert list(find_steps(str(run_folder), ["all"])) == [2, 4, 10]
    found = find_steps(str(run_folder / "checkpoints"), ["10", "4"])
    assert {step: path.name for step, path in found.items()} == {4: "4", 10: "10"}
    with pytest.raises(CheckpointError, match=r"has no step 5, 7; there are: 2, 4, 10 \(train.keep_every"):
        find_steps(str(run_folder), ["7", "4", "5"])
    with pytest.raises(ConfigError, match="--steps=4,some: write whole numbers"):
        find_steps(str(run_folder), ["4", "some"])


def test_tables_grow_with_each_step(run_folder, tmp_path):
    seen = []

    def one(checkpoint, workdir):
        seen.append((checkpoint, workdir.name))
        if len(seen) > 1:
            assert json.loads((tmp_path / "steps.json").read_text())["2"]["8x8-cfg1.5"]["fid"] == 7.0
        return {CASE: Metrics(8.0 - len(seen), 1.0, 100.0, 0.5, 0.5)}

    sweep_steps(find_steps(str(run_folder), ["2", "10"]), tmp_path, one)
    assert seen == [(str(run_folder / "checkpoints" / s), f"step-{s}") for s in ("2", "10")]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in (tmp_path / "steps.md").read_text().splitlines()
    ]
    assert ["FID at step", "8x8-cfg1.5"] in rows and ["2", "7.00"] in rows and ["10", "6.00"] in rows
    assert (tmp_path / "steps.png").stat().st_size > 5_000


def test_a_case_that_a_step_lacks_is_a_dash():
    table = steps_table({1000: {CASE: Metrics(1.0, 1.0, 1.0, 0.5, 0.5)}, 2000: {}})
    assert "| 1,000" in table and "| -" in table.splitlines()[-1]


@pytest.mark.parametrize("name", ["imagenet256_finetune", "imagenet512_finetune"])
def test_fine_tuning_keeps_the_steps_that_the_sweep_wants(name):
    """Appendix L has its best FID at 512 around step 50,000 of 100,000."""
    train = importlib.import_module(f"configs.{name}").get_config().train
    kept = range(train.keep_every, train.num_steps + 1, train.keep_every)
    assert train.keep_every % train.checkpoint_every == 0
    assert 50_000 in kept and len(kept) >= 5
