"""Real signals to real processes: what is trained is saved, and what is not begins again with the same command."""

import os
import signal
import time
from pathlib import Path

import jax
import pytest
from script_runs import Script
from tiny import network_of, tiny_config
from training.run_results import assert_same

from ledit_jax.models import init_params
from ledit_jax.training.loop import train
from ledit_jax.weights import export_weights, find_checkpoint, load_weights

TRAIN = """
import pathlib, sys, time
from ledit_jax import cli
from tiny import tiny_config
from ledit_jax.training.loop import train

def main():
    config = tiny_config(train=dict(num_steps=100_000, checkpoint_every=100_000))
    config = config.replaced("data", num_workers=num_workers)
    workdir.mkdir(exist_ok=True)
    (workdir / "starting").touch()
    time.sleep(pause)
    train(config, workdir)

if __name__ == "__main__":
    workdir, num_workers, pause = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    sys.argv[1:] = []
    cli.run(main, "A test.")
"""


def start(folder: Path, workdir: Path, num_workers: int = 0, pause: float = 0) -> Script:
    script = folder / "run.py"
    if not script.exists():  # another process may be about to read it
        script.write_text(TRAIN)
    return Script([script, workdir, num_workers, pause], folder / "output", folder / f"{workdir.name}.log")


def rows(workdir: Path) -> int:
    metrics = workdir / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def test_signals_sent_again_and_again_do_not_lose_the_checkpoint(tmp_path):
    workdir = tmp_path / "run"
    process = start(tmp_path, workdir)
    process.wait_for(lambda: rows(workdir) >= 5)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.01)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.005)
    said = (tmp_path / "run.log").read_text()
    assert process.returncode == 0, said[-2000:]
    assert "Traceback" not in said and "SIGHUP: stopping after this step, then saving" in said
    assert load_weights(workdir)[2] >= 5 and "stopped at step" in said


def test_signals_while_starting_end_it_with_a_line(tmp_path):
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    processes = [start(tmp_path, tmp_path / str(int(number)), pause=600) for number in numbers]
    for number, process in zip(numbers, processes, strict=True):
        process.wait_for((tmp_path / str(int(number)) / "starting").exists)
        process.send_signal(number)
        code, said = process.wait(60), (tmp_path / f"{int(number)}.log").read_text()
        assert code == 1, said
        assert said == f"error: stopped by {number.name}: what is done is kept, and the same command goes on\n"


def test_sampling_ends_with_a_line(tmp_path):
    config = tiny_config()
    export_weights(tmp_path / "c", init_params(network_of(config), jax.random.key(0)), config, step=1)
    out = tmp_path / "x.npz"
    command = ["sample.py", f"--checkpoint={tmp_path / 'c'}", "--num_samples=1000000", f"--out={out}"]
    process = Script([*command, "--num_steps=100"], tmp_path / "output", tmp_path / "log")
    process.wait_for(lambda: any(tmp_path.glob("x*shards*")))
    process.send_signal(signal.SIGTERM)
    code, said = process.wait(60), (tmp_path / "log").read_text()
    assert code == 1, said
    assert "stopped by SIGTERM: what is done is kept" in said and "Traceback" not in said


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at Linux's /proc")
def test_workers_end_with_a_killed_parent_and_not_by_its_group_s_signals(tmp_path):
    workdir = tmp_path / "run"
    process = start(tmp_path, workdir, num_workers=2)
    process.wait_for(lambda: rows(workdir) >= 5)
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    workers = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    assert len(workers) >= 2
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    seen = rows(workdir)
    process.wait_for(lambda: rows(workdir) >= seen + 20)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [pid for pid in workers if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_sigterm_saves_and_exits_0_then_the_same_command_finishes_the_run(tmp_path):
    """A real process, a real signal; the result is that of a run nobody touched."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom tiny import tiny_config\nfrom ledit_jax.training.loop import train\n"
        "train(tiny_config(train=dict(num_steps=100, checkpoint_every=1000)), sys.argv[1])\n"
    )
    command, log = [script, tmp_path / "killed"], tmp_path / "log"
    process = Script(command, log, log)
    process.wait_for(lambda: rows(tmp_path / "killed") >= 10)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    stopped_at = int(find_checkpoint(tmp_path / "killed").name)
    assert 10 <= stopped_at < 100
    assert Script(command, log, log).wait() == 0, log.read_text()
    train(tiny_config(train=dict(num_steps=100, checkpoint_every=1000)), tmp_path / "whole")
    killed, whole = (load_weights(tmp_path / name, "params") for name in ("killed", "whole"))
    assert killed[2] == whole[2] == 100
    assert_same(killed[0], whole[0])
