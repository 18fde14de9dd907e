"""Files that PyTorch cannot read: the reason in a few words, and never its advice to run the code in them."""

import os

import pytest
import torch

from ledit_jax.convert.autoencoders import _setting
from ledit_jax.convert.files import StoredTensors, open_tensors
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.errors import CheckpointError, DataError, OutputError


@pytest.mark.parametrize("kind", ["garbage", "cut", "old"])
def test_advice_is_not_passed_on(tmp_path, kind):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=kind != "old")
    whole = path.read_bytes()
    path.write_bytes(b"garbage" * 100 if kind == "garbage" else whole[: len(whole) // 2])
    with pytest.raises(
        CheckpointError, match="is damaged, cut short or no PyTorch file .*: download it again$"
    ) as caught:
        open_tensors(path)
    said = str(caught.value)
    assert "weights_only" not in said and "file an issue" not in said and len(said) < 300 and "\n" not in said


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_of_latents_that_cannot_be_is_named(tmp_path, scale):
    stored = StoredTensors(tmp_path, {}, {}, {}, {"scaling_factor": scale})
    with pytest.raises(DataError, match=f"scaling_factor={scale} cannot be"):
        _setting(stored, "scaling_factor", float, 1.0)


def test_tensors_that_are_no_plain_arrays_are_named(tmp_path):
    for tensor in (torch.eye(3).to_sparse(), torch.empty(3, device="meta")):
        torch.save({"a": tensor}, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match=r"x.pt: a is no plain tensor \(torch\..*: save it as one"):
            open_tensors(tmp_path / "x.pt").read(["a"])


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="is no regular file"):
        open_tensors(tmp_path / "x.pt")


def test_what_is_not_written_over(tmp_path):
    source, notes = tmp_path / "x.pt", tmp_path / "notes"
    torch.save({"a": torch.zeros(3)}, source)
    notes.write_text("precious")
    for output, says in ((source, "is the input"), (notes, "is a file, and a folder is to be"), ("", "is no name")):
        with pytest.raises(OutputError, match=says):
            convert_to_checkpoint(source, output, overwrite=True)
    assert notes.read_text() == "precious" and open_tensors(source).shapes == {"a": (3,)}
