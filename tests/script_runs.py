"""Runs the project's scripts as their users do, in processes that have imported what the scripts import.

A script spends two seconds of processor time on imports, which is all there is to a refused flag. Each run here is a
process of its own, forked from one that has made the imports and nothing else (Python's `forkserver`).
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        "ledit_jax.cli",
        "ledit_jax.compile_only.programs",
        "ledit_jax.convert.read",
        "ledit_jax.data.encoding",
        "ledit_jax.evaluation.suite",
        "ledit_jax.sampling.pipeline",
        "ledit_jax.training.loop",
        "sklearn.datasets",
        "tensorboardX",
    ]
)


class Script:
    """A script in a process of its own, told and asked as a `subprocess.Popen` is.

    command: a script, from the repository's root, and its arguments. stdout, stderr: files. environment: what differs
    from that of the tests.
    """

    def __init__(self, command: list, stdout: Path, stderr: Path, environment: Mapping[str, str] | None = None):
        self.args, self.stderr = [str(part) for part in command], stderr
        for output in (stdout, stderr):
            output.write_text("")
        self._process = _PROCESSES.Process(
            target=_become, args=(self.args, str(stdout), str(stderr), dict(environment or {}))
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended just now
            if self.returncode is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def run(script: str, *arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess:
    """What `python script arguments` in the repository's root prints and returns."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        process = Script([script, *arguments], *outputs, environment)
        try:
            process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, *(o.read_text() for o in outputs))


def assert_one_line(result: subprocess.CompletedProcess, *parts: str) -> None:
    """The run was refused with one line that holds each of the parts."""
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def _become(command: list[str], stdout: str, stderr: str, environment: dict[str, str]) -> None:
    for descriptor, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv, sys.path[:1] = command, [str(ROOT), str(ROOT / "tests")]
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
