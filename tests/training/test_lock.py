"""The lock of a workdir, with real processes: held, freed by an end of any kind, and named in the message."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from script_runs import Script
from tiny import tiny_config, with_train

from ledit_jax.errors import OutputError
from ledit_jax.training.lock import LOCK_FILE, claimed
from ledit_jax.training.loop import train

HOLD = """
import pathlib, sys, time
from ledit_jax.training.lock import claimed
with claimed(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(workdir: Path, folder: Path) -> Script:
    (folder / "hold.py").write_text(HOLD)
    process = Script([folder / "hold.py", workdir], folder / "output", folder / "errors")
    process.wait_for(lambda: (folder / "output").read_text() == "held\n")
    return process


def test_a_second_trainer_is_refused_until_the_first_is_killed(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("run")
    config, other = with_train(tiny_config(), num_steps=1), hold(tmp_path, tmp_path_factory.mktemp("other"))
    try:
        message = f"workdir={tmp_path} is being trained in by process {other.pid} on {socket.gethostname()}, since "
        with pytest.raises(OutputError, match=message):
            train(config, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE], "nothing of the other run was touched"
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert int(train(config, tmp_path).step) == 1  # what the killed one left is no obstacle
    assert (tmp_path / LOCK_FILE).read_text() == ""
    with claimed(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_a_lock_that_another_host_left_is_taken_with_a_warning(tmp_path, caplog):
    (tmp_path / LOCK_FILE).write_text('{"pid": 7, "host": "node-7", "since": "then"}')
    with caplog.at_level("WARNING", logger="ledit_jax"), claimed(tmp_path):
        pass
    assert "left by process 7 on node-7" in caplog.text


def test_a_damaged_lock_is_no_obstacle(tmp_path):
    for text in ("{", "[1]", '{"host": 3}', "\0" * 9):
        (tmp_path / LOCK_FILE).write_text(text)
        with claimed(tmp_path):
            pass


def test_a_folder_of_checkpoints_is_no_workdir(tmp_path):
    """A run in it would hide them: whoever names the folder would get the run's."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "_CHECKPOINT_METADATA").touch()
    with pytest.raises(OutputError, match="is a folder of checkpoints itself"), claimed(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["7"]


@pytest.mark.parametrize("alive", [True, False])
def test_without_locks_the_process_decides(tmp_path, monkeypatch, alive):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    child = subprocess.Popen(["sleep", "600"])
    (tmp_path / LOCK_FILE).write_text(json.dumps({"pid": child.pid, "host": socket.gethostname()}))
    monkeypatch.setattr("fcntl.flock", refuse)
    if not alive:
        child.kill()
        child.wait()
        with claimed(tmp_path):
            pass
        return
    try:
        with pytest.raises(OutputError, match=f"process {child.pid} on"), claimed(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()
