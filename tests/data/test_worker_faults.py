"""Worker processes that do not start or do not answer: a line in seconds, and nobody has to be killed."""

import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
from script_runs import Script, run

from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data import make_loader, read_ahead
from ledit_jax.errors import DataError

CONFIG = DataConfig(image_height=8, image_width=8, image_channels=1, num_workers=1)


class Grey:
    """What a test makes of it happens in a worker."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"image": np.full((8, 8, 1), index, np.uint8)}


class Unpackable(Grey):
    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise SystemExit("no module of that name here")


class Locked(Grey):
    """Its error holds what cannot be sent back."""

    def __getitem__(self, index):
        raise KeyError("the disk is gone", threading.Lock())


class Held(Grey):
    def __init__(self):
        self.lock = threading.Lock()


def no_condition(record, rng):
    return None


def open_loader(source, **changes):
    loader = make_loader(
        CONFIG.__class__(**(vars(CONFIG) | changes)),
        AutoencoderConfig(),
        condition=no_condition,
        batch_size=4,
        seed=0,
        source=source,
    )
    return loader


@pytest.mark.parametrize(
    "source, says",
    [
        (Unpackable(), "a worker process cannot unpack the source .SystemExit: no module of that name here"),
        (Locked(), "a worker process failed to read .KeyError: ..the disk is gone"),
        (Held(), "cannot be sent to worker processes .TypeError: cannot pickle '_thread.lock'.*num_workers=0"),
    ],
    ids=["unpack", "read", "send"],
)
def test_what_fails_in_a_worker_is_told(source, says):
    loader = open_loader(source)
    with pytest.raises(DataError, match=says) as caught:
        next(loader)
    assert "\n" not in str(caught.value)
    loader.close()


# The main module of the worker fails: before it has read what it is sent, which is more than a pipe holds.
TRAIN = """
import sys
if __name__ == "__mp_main__":
    {fails}

import numpy as np
from ledit_jax import cli
from ledit_jax.training.loop import train
from tiny import tiny_config

class Grey:
    num_classes = 10
    names = ["x" * 100] * 10_000

    def __len__(self):
        return 8

    def __getitem__(self, index):
        {read}
        return {{"image": np.zeros((8, 8, 1), np.uint8), "label": 0}}

def main():
    config = tiny_config().replaced("data", num_workers={workers})
    train(config, sys.argv[0] + "-run", source=Grey())

if __name__ == "__main__":
    cli.run(main, "A test.")
"""


@pytest.mark.parametrize(
    "fails, says",
    [
        ("raise ImportError('no such driver')", "exit code 1"),
        ("sys.exit(0)", "the worker processes ended by themselves"),
    ],
    ids=["raises", "exits"],
)
def test_a_main_module_that_fails_in_the_workers_ends_the_run(tmp_path, fails, says):
    script = tmp_path / "run.py"
    script.write_text(TRAIN.format(fails=fails, read="pass", workers=2))
    result = run(str(script), timeout=60)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 2, result.stderr
    assert last.startswith("error: data.num_workers") and says in last and "num_workers=0 reads without" in last


def test_workers_that_were_never_seen_are_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(read_ahead, "_START", 0.1)
    workers = read_ahead._Workers(1)
    workers.check()
    workers.delivered()
    time.sleep(0.15)
    with pytest.raises(DataError, match="data.num_workers=1: the worker processes ended by themselves"):
        workers.check()


def test_a_signal_is_heeded_while_workers_do_not_answer(tmp_path):
    script, began = tmp_path / "run.py", tmp_path / "run.py-began"
    wait = "import pathlib, time; pathlib.Path(__file__ + '-began').touch(); time.sleep(600)"
    script.write_text(TRAIN.format(fails="pass", read=wait, workers=1))
    process = Script([script])
    process.wait_for(began.exists)
    process.send_signal(signal.SIGTERM)
    result = process.finish(60)
    assert result.returncode == 0, result.stderr
    assert "SIGTERM: stopping after this step, then saving" in result.stderr and "stopped at step 0" in result.stderr


def test_no_more_workers_than_cores_are_started(caplog):
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        with caplog.at_level("INFO", logger="ledit_jax"):
            loader = open_loader(Grey(), num_workers=3)
            batch = next(loader)
            workers = [child for child in multiprocessing.active_children() if child.name.startswith("grain-")]
    finally:
        os.sched_setaffinity(0, allowed)
        loader.close()
    assert batch["x"].shape == (4, 8, 8, 1) and len(workers) == 1
    assert "data.num_workers=3 is more than the 1 cores there are: 1 are started" in caplog.text
