"""The demo's handling of the training that it stops, and the export of a run's weights."""

import subprocess
import sys

import pytest
from tiny import tiny_config, with_train

from experiments.demo import finish, last_step, stop_at
from experiments.ship import export
from ledit_jax.errors import OutputError, TrainingStopped
from ledit_jax.training.loop import train
from ledit_jax.weights import load_weights

RUN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[2])))
with open(sys.argv[1], "w") as metrics:
    for step in range(10_000):
        print(f'{{"step": {step}}}', file=metrics, flush=True)
        time.sleep(0.01)
sys.exit(9)
"""


def test_last_step_ignores_a_line_that_is_being_written(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    assert last_step(metrics) == 0
    metrics.write_text('{"step": 10, "loss": 1}\n{"step": 20, "lo')
    assert last_step(metrics) == 10


@pytest.mark.parametrize("code", [0, 3])
def test_a_run_is_stopped_at_a_step_and_must_end_well(tmp_path, code):
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "metrics.jsonl"), str(code)])
    if code:
        with pytest.raises(TrainingStopped, match="exit code 3"):
            stop_at(20, process, tmp_path / "metrics.jsonl")
    else:
        stop_at(20, process, tmp_path / "metrics.jsonl")
    assert 20 <= last_step(tmp_path / "metrics.jsonl") < 9_999


def test_a_run_that_fails_by_itself_is_reported():
    with pytest.raises(TrainingStopped, match="exit code 4"):
        finish(subprocess.Popen([sys.executable, "-c", "raise SystemExit(4)"]))


def test_export_is_the_ema_of_the_run(tmp_path):
    state = train(with_train(tiny_config(), num_steps=2), tmp_path / "run")
    for _ in range(2):  # the second replaces the first
        assert export(tmp_path / "run", tmp_path / "export") == 2
    params, _, step = load_weights(tmp_path / "export")
    assert step == 2
    assert (params["patch_embed"]["kernel"] == state.ema["patch_embed"]["kernel"]).all()
    assert (params["patch_embed"]["kernel"] != state.params["patch_embed"]["kernel"]).any()
    assert not list((tmp_path / "export").rglob("commit_success.txt"))
    for ours in (tmp_path / "run", tmp_path / "run" / "checkpoints"):
        with pytest.raises(OutputError, match="holds something else"):
            export(tmp_path / "export", ours)
    assert load_weights(tmp_path / "run", "params")[2] == 2
