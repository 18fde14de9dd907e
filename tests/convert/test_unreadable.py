"""Files that PyTorch cannot read: the reason in a few words, and never its advice to run the code in them."""

import pickle

import pytest
import torch

from ledit_jax.convert.files import open_tensors
from ledit_jax.errors import CheckpointError


@pytest.mark.parametrize("kind", ["garbage", "pickle", "cut", "old"])
def test_advice_is_not_passed_on(tmp_path, kind):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=kind != "old")
    whole = path.read_bytes()
    texts = {"garbage": b"garbage" * 100, "pickle": pickle.dumps({"a": 1}, protocol=5)}
    path.write_bytes(texts.get(kind, whole[: len(whole) // 2]))
    with pytest.raises(
        CheckpointError, match="is damaged, cut short or no PyTorch file .*: download it again$"
    ) as caught:
        open_tensors(path)
    said = str(caught.value)
    assert "weights_only" not in said and "file an issue" not in said and len(said) < 300 and "\n" not in said
