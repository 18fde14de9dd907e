"""Runs the project's scripts as their users do, in processes that have imported what the scripts import.

A script spends two seconds of processor time on imports, which is all there is to a refused flag. Each run here is a
process of its own, forked from one that has made the imports and nothing else (Python's `forkserver`).
"""

import atexit
import contextlib
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "ledit_jax.cli",
        "ledit_jax.compile_only.programs",
        "ledit_jax.convert.read",
        "ledit_jax.data.encoding",
        "ledit_jax.evaluation.suite",
        "ledit_jax.sampling.pipeline",
        "ledit_jax.training.loop",
        "jaxlib.mlir.dialects.mhlo",  # what jax itself imports late: half a second before the first program
        "sklearn.datasets",
        "tensorboardX",
    ]
)


class Script:
    """A script in a process of its own, told and asked as a `subprocess.Popen` is.

    command: a script, from the repository's root, and its arguments. stdout, stderr: files, by default of a folder that
    goes with `finish`. most_bytes: of a file, more fails as a full disk does. encoding: of what it prints. environment:
    what differs from that of the tests.
    """

    def __init__(
        self,
        command: list,
        stdout: Path | None = None,
        stderr: Path | None = None,
        *,
        most_bytes: int | None = None,
        encoding: str = "utf-8",
        **environment: str,
    ):
        self._folder = contextlib.nullcontext() if stdout and stderr else tempfile.TemporaryDirectory()
        self.stdout, self.stderr = (
            given or Path(self._folder.name) / name for given, name in ((stdout, "stdout"), (stderr, "stderr"))
        )
        for output in (self.stdout, self.stderr):
            output.write_text("")
        self.args = [str(part) for part in command]
        outputs = str(self.stdout), str(self.stderr)
        self._process = PROCESSES.Process(target=_become, args=(self.args, outputs, most_bytes, encoding, environment))
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
            raise subprocess.TimeoutExpired(self.args, timeout, self.stdout.read_text(), self.stderr.read_text())
        return self.returncode

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until something holds; the script has to be running then."""
        while not condition():
            assert self.returncode is None, self.stderr.read_text()
            time.sleep(0.01)

    def finish(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """What it printed and returned."""
        with self._folder:
            try:
                self.wait(timeout)
            finally:
                self.kill()
            said = self.stdout.read_text(), self.stderr.read_text()
            return subprocess.CompletedProcess(self.args, self.returncode, *said)

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended just now
            if self.returncode is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def run(script: str, *arguments: str, timeout: float = 300, **settings) -> subprocess.CompletedProcess:
    """What `python script arguments` in the repository's root prints and returns; settings as for `Script`."""
    return Script([script, *arguments], **settings).finish(timeout)


def assert_one_line(result: subprocess.CompletedProcess, *parts: str) -> None:
    """The run was refused with one line that holds each of the parts."""
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def _become(
    command: list[str], outputs: tuple[str, str], most_bytes: int | None, encoding: str, environment: dict[str, str]
) -> None:
    for descriptor, path in zip((1, 2), outputs, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding=encoding, errors=stream.errors)
    os.environ.update(environment)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # libtpu, where a test has loaded it, ignores it, as nohup does
    if most_bytes is not None:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)  # what is cut short would be so for all
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    os.chdir(ROOT)
    sys.argv, sys.path[:1] = command, [str(ROOT), str(ROOT / "tests")]
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:  # Python's own order at an end, of which multiprocessing leaves out the second
        threading._shutdown()
        atexit._run_exitfuncs()
