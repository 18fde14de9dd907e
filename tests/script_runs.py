"""Runs the project's scripts as their users do, in processes that have imported what the scripts import.

A script spends two seconds of processor time on imports, which is all there is to a refused flag. Each run here is a
process of its own, forked from one that has made the imports and nothing else (Python's `forkserver`).
"""

import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

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


class Script:
    """`python script arguments` in the repository's root, under way.

    most_bytes: of a file, more fails as a full disk does. encoding: of what it prints.
    """

    def __init__(self, script: str, *arguments: str, most_bytes: int | None = None, encoding: str = "utf-8"):
        self.command = [script, *arguments]
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        settings = self.command, list(map(str, self._outputs)), most_bytes, encoding
        self._process = _PROCESSES.Process(target=_become, args=settings)
        self._process.start()

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until something holds; the script has to be running then."""
        while not condition():
            assert self._process.is_alive(), self.wait(0).stderr
            time.sleep(0.01)

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """What it printed and returned."""
        self._process.join(timeout)
        said = [output.read_text() for output in self._outputs]
        self._folder.cleanup()
        if self._process.is_alive():
            self._process.kill()
            raise subprocess.TimeoutExpired(self.command, timeout, *said)
        return subprocess.CompletedProcess(self.command, self._process.exitcode, *said)


def run(script: str, *arguments: str, timeout: float = 300, **settings) -> subprocess.CompletedProcess:
    """What `python script arguments` in the repository's root prints and returns; settings as for `Script`."""
    return Script(script, *arguments, **settings).wait(timeout)


def _become(command: list[str], outputs: list[str], most_bytes: int | None, encoding: str) -> None:
    for descriptor, path in zip((1, 2), outputs, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding=encoding, errors=stream.errors)
    if most_bytes is not None:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)  # what is cut short would be so for all
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    os.chdir(ROOT)
    sys.argv, sys.path[0] = command, str(ROOT)
    runpy.run_path(command[0], run_name="__main__")
