"""Runs the project's scripts as their users do, in processes that have imported what the scripts import.

A script spends two seconds of processor time on imports, which is all there is to a refused flag. Each run here is a
process of its own, forked from one that has made the imports and nothing else (Python's `forkserver`).
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        "ledit_jax.cli",
        "ledit_jax.compile_only.programs",
        "ledit_jax.convert.read",
        "ledit_jax.evaluation.suite",
        "ledit_jax.sampling.pipeline",
        "ledit_jax.training.loop",
    ]
)


def run(script: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
    """What `python script arguments` in the repository's root prints and returns."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        process = _PROCESSES.Process(target=_become, args=([script, *arguments], *map(str, outputs)))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired([script, *arguments], timeout)
        return subprocess.CompletedProcess([script, *arguments], process.exitcode, *(o.read_text() for o in outputs))


def assert_one_line(result: subprocess.CompletedProcess, *parts: str) -> None:
    """The run was refused with one line that holds each of the parts."""
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def _become(command: list[str], stdout: str, stderr: str) -> None:
    for descriptor, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(ROOT)
    sys.argv, sys.path[0] = command, str(ROOT)
    runpy.run_path(command[0], run_name="__main__")
