"""Folders that are removed while they are written to: an error that names them, and nothing made beside the rest."""

import shutil

import jax
import numpy as np
import pytest
from tiny import network_of, tiny_config

from ledit_jax.config import SampleConfig
from ledit_jax.errors import OutputError
from ledit_jax.files import PieceFolder
from ledit_jax.models import init_params
from ledit_jax.sampling import run
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.run import Recipe, write_samples
from ledit_jax.training.checkpoint import TrainCheckpointer
from ledit_jax.training.hooks import Hook
from ledit_jax.training.loop import train


@pytest.mark.parametrize("checkpoint_every", [1, 8], ids=["saving", "logging"])
def test_training(tmp_path, checkpoint_every, monkeypatch):
    workdir, moved = tmp_path / "run", tmp_path / "moved"
    config = tiny_config(train=dict(checkpoint_every=checkpoint_every, log_every=9 - checkpoint_every))

    def save(self, state, data_state, start=TrainCheckpointer.save):
        start(self, state, data_state)
        self.wait()  # what is under way when the folder goes fails too, in words of Orbax's threads

    def move(params, step):
        if step == 2:
            workdir.rename(moved)

    monkeypatch.setattr(TrainCheckpointer, "save", save)
    with pytest.raises(OutputError, match=f"^{workdir} was removed, moved or replaced while it was written to"):
        train(config, workdir, hooks=[Hook(1, move)])
    assert not (workdir / "checkpoints" / "8").exists() and (moved / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Checkpoint directory does not exist: /x/20.orbax-checkpoint-tmp/optimizer.orbax-checkpoint-tmp."),
        ValueError('NOT_FOUND: Error writing "bias/0" in OCDBT database at local file "/x/20.orbax-checkpoint-tmp"'),
        ValueError(
            "No ArrayMetadata found for process_index=0 in the checkpoint directory: /x/20.orbax-checkpoint-tmp"
        ),
        FileNotFoundError(2, "No such file or directory", "/x/20.orbax-checkpoint-tmp/ema/_METADATA"),
    ],
)
def test_what_orbax_misses_while_the_folder_is_being_removed(tmp_path, monkeypatch, error):
    checkpointer = TrainCheckpointer(tmp_path, tiny_config())
    monkeypatch.setattr(checkpointer.manager, "check_for_errors", lambda: (_ for _ in ()).throw(error))
    with pytest.raises(OutputError, match="checkpoints was removed, moved or replaced while it was written to"):
        checkpointer.check()
    monkeypatch.undo()
    checkpointer.close()


def test_sampling(tmp_path, monkeypatch):
    config, out = tiny_config(), tmp_path / "x.npz"
    pipeline = LEDiTPipeline(config, init_params(network_of(config), jax.random.key(0)))
    options = SampleConfig(sampler="ddim", num_steps=2)
    recipe = Recipe("c", 1, "ema", "1", None, None, "balanced", (0, 1), 6, 8, 8, 0, options)

    def draw(pipeline, recipe, labels, indices, batch_size):
        if indices.start == 4:
            shutil.rmtree(tmp_path / "x.npz.shards")
        return np.zeros((len(indices), 8, 8, 1), np.uint8)

    monkeypatch.setattr(run, "_draw", draw)
    with pytest.raises(OutputError, match=r"x.npz.shards was removed, moved or replaced"):
        write_samples(out, pipeline, recipe, batch_size=2)
    assert not list(tmp_path.iterdir())


def test_a_piece_is_not_written_into_a_new_folder(tmp_path):
    pieces = PieceFolder.open(tmp_path / "f", "note.json", {"a": 1})
    with pytest.raises(OutputError, match=r"f was removed, moved or replaced"), pieces.write("x"):
        next((tmp_path / "f").glob(".partial*")).unlink()  # as `rm -r` does, on its way to the note
    shutil.rmtree(tmp_path / "f")
    with pytest.raises(OutputError, match=r"f was removed, moved or replaced"), pieces.write("x"):
        pass
    assert not (tmp_path / "f").exists()
