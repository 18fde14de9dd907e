"""Results that are kept one by one, so that a command which was stopped goes on where it was."""

import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

from ledit_jax.files import read_json, write_json


class Report:
    """Results by name, on disk as JSON as soon as each is there."""

    def __init__(self, path: Path, packages: tuple[str, ...]):
        self.path, self.packages = path, packages
        self.results = read_json(path) if path.exists() else {}

    def get(self, name: str, compute: Callable[[], dict], final: tuple[str, ...] = ()) -> dict:
        """The result of that name; computed if it is missing, or has an `error` that is none of `final`."""
        error = self.results.get(name, {"error": "missing"}).get("error")
        if error is not None and error not in final:
            print(f"{time.strftime('%H:%M:%S')} {name} ...", file=sys.stderr, flush=True)
            self.results[name] = compute()
            # Of the newest result: a table that is only printed again keeps those it was measured with.
            versions = {name: _version(name) for name in self.packages}
            self.results |= {"date": time.strftime("%Y-%m-%d"), "versions": versions}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, self.results)
        return self.results[name]

    def heading(self) -> str:
        """Date and versions, as the last line of a table."""
        return ", ".join([self.results["date"], *(f"{name} {v}" for name, v in self.results["versions"].items())])


def _version(name: str) -> str:
    """Of an installed package; libtpu may lie apart, where TPU_LIBRARY_PATH says."""
    apart = [str(folder) for folder in Path(os.environ.get("TPU_LIBRARY_PATH", "")).parents]
    return next((found.version for found in distributions(name=name, path=sys.path + apart)), "none")
