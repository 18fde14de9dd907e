"""Pickles: no code of a converted file ever runs, and nothing else in the project reads one."""

import argparse
import ast
import contextlib
import os
import pickle

import pytest
import torch
from convert.dit_files import oracle, small
from script_runs import ROOT, assert_one_line, run

from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.errors import CheckpointError


@pytest.fixture(scope="module")
def state():
    return oracle(small()).state_dict()


class Malicious:
    """What a pickle can do to whoever loads it."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("make", ["torch", "legacy", "pickle", "newer pickle", "inside"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path, state, make):
    source, mark = tmp_path / "model.pt", tmp_path / "it ran"
    if "pickle" in make:
        protocol = 2 if make == "pickle" else 5  # torch writes 2, and its restricted reader knows no frames
        source.write_bytes(pickle.dumps({"x_embedder.proj.weight": Malicious(mark)}, protocol))
    elif make == "inside":
        torch.save({"ema": state, "args": argparse.Namespace(model=Malicious(mark))}, source)
    else:
        torch.save(state | {"x": Malicious(mark)}, source, _use_new_zipfile_serialization=make == "torch")
    if make == "torch":  # once as a user would
        result = run("convert_torch_weights.py", f"--input={source}", f"--output={tmp_path / 'c'}")
        assert_one_line(result, "holds code (posix.mkdir) and was not opened")
    reason = (
        "may hold code, and was not opened"
        if make == "newer pickle"
        else r"holds code \(posix.mkdir\) and was not opened"
    )
    with pytest.raises(CheckpointError, match=reason):
        convert_to_checkpoint(source, tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    with contextlib.suppress(RuntimeError):  # torch runs a bare pickle first and complains about it later
        torch.load(source, weights_only=False)  # the file does bite where it is let
    assert mark.is_dir()


def test_nothing_in_the_project_unpickles():
    """No import that reads pickles, no torch.load but the restricted one, no allow_pickle."""
    files = [*ROOT.glob("*.py"), *(ROOT / "ledit_jax").rglob("*.py"), *(ROOT / "configs").glob("*.py")]
    # Workers are sent functions so, as multiprocessing does: in a folder of this user's alone, that the parent wrote.
    files.remove(ROOT / "ledit_jax" / "data" / "portable.py")
    loads = 0
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"} & set(names), path
            if isinstance(node, ast.Call):
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert keywords.get("allow_pickle", "False") == "False", path
                if ast.unparse(node.func) == "torch.load":
                    loads += 1
                    assert keywords.get("weights_only") == "True", path
    assert loads == 1
