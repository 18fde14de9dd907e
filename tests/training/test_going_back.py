"""A way out of a newest checkpoint that is damaged or half-written: real files, cut short or removed."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import tiny_config, with_train

from ledit_jax.errors import CheckpointError
from ledit_jax.training.loop import train
from ledit_jax.weights import find_checkpoint, load_weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints of the steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(CONFIG, folder)
    return folder


CONFIG = with_train(tiny_config(), num_steps=6, checkpoint_every=2)


def damage(step: Path) -> None:
    for path in (step / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_going_back_from_a_damaged_checkpoint(tmp_path, trained):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    newest = workdir / "checkpoints" / "6"
    damage(newest)
    with pytest.raises(CheckpointError, match=f"{newest} is damaged .*: remove {newest}, or go back .*=4"):
        train(CONFIG, workdir)
    with pytest.raises(CheckpointError, match=r"resume_from=3: .* has no such step; there are: 2, 4, 6"):
        train(CONFIG, workdir, resume_from=3)
    state = train(CONFIG, workdir, resume_from=4)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(load_weights(trained, "params")[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert steps(workdir) == [2, 4, 6] and load_weights(workdir)[2] == 6
    assert [path.name for path in (workdir / "set_aside" / "resumed_from_4").iterdir()] == ["6"]

    # The same command again, as after a preemption, does not throw away what was trained since.
    longer = with_train(CONFIG, num_steps=7)
    assert int(train(longer, workdir, resume_from=4).step) == 7
    assert steps(workdir) == [4, 6, 7]


def test_training_and_sampling_agree_on_what_is_complete(tmp_path, trained, caplog):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    newest = workdir / "checkpoints" / "6"
    (newest / "_CHECKPOINT_METADATA").unlink()
    assert find_checkpoint(workdir).name == "4"
    assert f"{newest} is half-written (it has no commit mark): passed over" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", logger="ledit_jax"):
        train(CONFIG, workdir)
    assert f"resumed {workdir} at step 4" in caplog.text
    assert find_checkpoint(workdir).name == "6" and (workdir / "set_aside" / "half_written" / "6").is_dir()

    for step in steps(workdir):
        (workdir / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").unlink()
    for use in (find_checkpoint, lambda folder: train(CONFIG, folder)):
        with pytest.raises(CheckpointError, match=r"checkpoints/6 is half-written"):
            use(workdir)
