"""sample.py over two processes on one machine, ended by a signal: jax's own handler would take it and tell nobody."""

import signal

import jax
from launch import free_address
from script_runs import Script
from tiny import network_of, tiny_config

from ledit_jax.models import init_params
from ledit_jax.weights import export_weights


def test_sigterm_ends_each_of_two_processes_with_a_line(tmp_path):
    config = tiny_config()
    export_weights(tmp_path / "c", init_params(network_of(config), jax.random.key(0)), config, step=1)
    joining = [f"--coordinator_address={free_address()}", "--num_processes=2"]
    flags = [f"--checkpoint={tmp_path / 'c'}", f"--out={tmp_path / 'x.npz'}", "--num_samples=1000000", "--num_steps=1"]
    processes = [Script(["sample.py", *flags, *joining, f"--process_id={index}"]) for index in range(2)]
    for process, shard in zip(processes, ("000000.npy", "000001.npy"), strict=True):
        process.wait_for((tmp_path / "x.npz.shards" / shard).exists)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for result in [process.finish(60) for process in processes]:
        assert result.returncode == 1, result.stderr
        assert result.stderr.splitlines()[-1].startswith("error: stopped by SIGTERM: what is done is kept")
