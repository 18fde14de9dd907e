"""Signals in the seconds that a script imports: one line, where Python would say nothing or print a traceback."""

import os
import signal
import subprocess
import sys
import time

import pytest
from script_runs import ROOT

HANG = "import pathlib, time\npathlib.Path(__file__ + '-began').touch()\ntime.sleep(600)\n"


@pytest.mark.parametrize(
    "script, number",
    [
        ("train", signal.SIGTERM),
        ("sample", signal.SIGHUP),
        ("encode_latents", signal.SIGINT),
        ("evaluate", signal.SIGTERM),
        ("convert_torch_weights", signal.SIGINT),
    ],
)
def test_a_signal_during_the_imports_ends_it_with_a_line(tmp_path, script, number):
    """An interpreter that starts from nothing, and a jax whose import never ends."""
    (tmp_path / "jax.py").write_text(HANG)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    # libtpu, once a test has loaded it, ignores SIGHUP in this process, which a child would take for nohup.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with subprocess.Popen(
        [sys.executable, f"{script}.py"], cwd=ROOT, env=environment, stderr=subprocess.PIPE
    ) as process:
        try:
            while not (tmp_path / "jax.py-began").exists():
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(number)
            said = process.communicate(timeout=60)[1].decode()
        finally:
            process.kill()
    assert process.returncode == 1, said
    assert said == f"error: stopped by {number.name}: what is done is kept, and the same command goes on\n"
