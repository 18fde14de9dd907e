"""Several processes as one run: how they start, stop together when one is told to, and survive the loss of one."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from launch import Launch, free_address
from script_runs import run
from tiny import with_train
from training.run_results import read_metrics

from ledit_jax.config import MeshConfig
from ledit_jax.errors import ConfigError
from ledit_jax.parallel.processes import start_processes
from ledit_jax.training.loop import train
from ledit_jax.weights import find_checkpoint, load_config, load_description, load_weights, read_json

# What each of the two processes runs. `orders` names a signal that process 1 sends itself, at which step and once which
# checkpoint is there, or the last step.
RUN = """
import dataclasses, json, logging, os, pathlib, signal, sys, time
import jax
from tiny import tiny_config
from ledit_jax.config import MeshConfig
from ledit_jax.parallel.processes import start_processes
from ledit_jax.training.hooks import Hook
from ledit_jax.training.loop import train

if __name__ == "__main__":
    logging.basicConfig(level="WARNING")
    logging.getLogger("ledit_jax").setLevel("INFO")
    workdir, orders, address, index = sys.argv[1:]
    orders = json.loads(pathlib.Path(orders).read_text())
    start_processes(*((address, 2, int(index)) if address else ()), timeout=200)
    assert (jax.process_count(), jax.local_device_count(), jax.device_count()) == (2, 2, 4)

    def obey(params, step):
        if jax.process_index() == 1 and step == orders.get("step"):
            while "saved" in orders and not (pathlib.Path(workdir) / "checkpoints" / orders["saved"]).is_dir():
                time.sleep(0.05)  # it is written beside the steps
            os.kill(os.getpid(), getattr(signal, orders["signal"]))
        if step > orders.get("step", 10_000):
            time.sleep(0.3)  # the notice needs a second to reach the other process

    train_settings = dict(num_steps=orders.get("steps", 12), checkpoint_every=5, dilation_probability=0.0)
    config = tiny_config(model=dict(depth=1, block_order="ca"), train=train_settings)
    data = dataclasses.replace(config.data, source="shapes")
    config = dataclasses.replace(config, data=data, mesh=MeshConfig(data=1, fsdp=4))
    train(config, workdir, hooks=[Hook(1, obey)])
"""


def launch(folder: Path, workdir: Path, orders: dict, slurm: bool = False) -> Launch:
    """Two processes with two CPU devices each."""
    plan = folder / "orders.json"
    plan.write_text(json.dumps(orders))
    return Launch(RUN, folder, workdir.name, workdir, plan, count=2, devices=2, slurm=slurm)


def test_a_run_that_is_killed_goes_on_as_one_that_was_not_until_both_are_preempted(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    # SIGTERM to one process: both stop at the same step, saved, and exit with 0.
    logs = launch(tmp_path, whole, {"signal": "SIGTERM", "step": 7}, slurm=True).run_to_the_end()
    last = int(find_checkpoint(whole).name)
    assert f"stopped at step {last}, saved" in logs[0] and 7 < last < 12
    assert "ledit_jax" not in logs[1], "one process speaks"

    # SIGKILL to one process: the other cannot go on, and the scheduler takes it away.
    with launch(tmp_path, parts, {"signal": "SIGKILL", "step": 7, "saved": "5"}) as processes:
        assert processes.wait(1) == -9, processes.said()
    assert int(find_checkpoint(parts).name) == 5

    logs = launch(tmp_path, parts, {"steps": last}).run_to_the_end()
    assert "resumed" in logs[0] and f"finished at step {last}" in logs[0]
    for weights in ("params", "ema"):
        expected, result = (load_weights(folder, weights) for folder in (whole, parts))
        assert expected[2] == result[2] == last
        for a, b in zip(jax.tree.leaves(expected[0]), jax.tree.leaves(result[0]), strict=True):
            np.testing.assert_array_equal(a, b)
    losses = [[(row["step"], row["loss"]) for row in read_metrics(folder)] for folder in (whole, parts)]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == list(range(1, last + 1))
    assert load_description(find_checkpoint(whole))["step"] == last
    # Each process wrote its own part of the parameters. One alone goes on from there, where both were preempted.
    assert {p.name for p in (find_checkpoint(whole) / "params").glob("ocdbt.process_*")} == {
        "ocdbt.process_0",
        "ocdbt.process_1",
    }
    config = load_config(find_checkpoint(whole))
    state = train(dataclasses.replace(with_train(config, num_steps=14), mesh=MeshConfig()), whole)
    assert int(state.step) == 14 and [row["step"] for row in read_metrics(whole)] == list(range(1, 15))
    (data,) = read_json(find_checkpoint(whole), "data")["per_process"]
    assert (data["legs"], data["next_batch"]) == ([[2, 4, last]], 14 - last)


AGREE = """
import pathlib, sys
import jax
from ledit_jax.errors import ConfigError, LEDiTError, OutputError
from ledit_jax.parallel.processes import check_shared, gather_json, main_process_first, start_processes

def refuse(error):
    raise error

def raised(action):
    try:
        action()
    except Exception as error:
        return type(error), str(error)

if __name__ == "__main__":
    folder, address, index = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    start_processes(address, 2, index, timeout=200)
    assert gather_json({"process": index, "long": "x" * index}) == [
        {"process": 0, "long": ""}, {"process": 1, "long": "x"}
    ]
    assert main_process_first(lambda: f"by {index}") == (None if index else "by 0")
    ours = raised(lambda: main_process_first(lambda: refuse(ConfigError("a=1 is bad"))))
    assert ours == (ConfigError, "a=1 is bad"), ours
    others = raised(lambda: main_process_first(lambda: refuse(KeyError("b"))))
    assert others == ((LEDiTError, "process 0 failed: KeyError: 'b'") if index else (KeyError, "'b'")), others
    check_shared(folder)
    kind, message = raised(lambda: check_shared(folder / str(index)))
    assert kind is OutputError and "process 1 does not see what process 0 writes" in message, message
"""


def test_processes_agree(tmp_path):
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
    Launch(AGREE, tmp_path, "agree", tmp_path, count=2, devices=1).run_to_the_end()
    assert not list(tmp_path.rglob(".shared-*"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((None, 2, None), "num_processes=2 without coordinator_address and process_id: give all three"),
        (("localhost:1", None, 0), "process_id=0 without num_processes: give all three"),
        (("localhost", 2, 0), "coordinator_address=localhost must be host:port"),
        (("localhost:99999", 2, 0), "coordinator_address=localhost:99999 must be host:port"),
        (("localhost:1", 2, 2), "process_id=2 of num_processes=2: use 0 to 1"),
    ],
)
def test_flags_that_do_not_fit_together(arguments, message):
    with pytest.raises(ConfigError, match=message):
        start_processes(*arguments)


def test_a_single_task_is_not_joined_to_itself(monkeypatch):
    for name, value in {"JOB_ID": "1", "STEP_NODELIST": "localhost", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    monkeypatch.setenv("SLURM_NTASKS", "1")
    start_processes()
    assert not calls
    monkeypatch.setenv("SLURM_NTASKS", "2")
    start_processes()
    assert len(calls) == 1


@pytest.mark.parametrize("index", [0, 1])
def test_processes_that_do_not_arrive_are_one_line(tmp_path, index):
    address = free_address()
    joining = [f"--coordinator_address={address}", "--num_processes=2", f"--process_id={index}"]
    command = ["train.py", "--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", *joining]
    result = run(*command, "--initialization_timeout=2")
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    expected = "not all of num_processes=2 arrived" if index == 0 else "could not be reached within 2 s (Connection"
    assert address in result.stderr and expected in result.stderr
    assert not (tmp_path / "run").exists()
