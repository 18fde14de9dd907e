"""What a run was started with, each time: config, versions, source revision and devices, in WORKDIR/run.json."""

import datetime
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

import ledit_jax
from ledit_jax.config import Config
from ledit_jax.files import Place, write_json
from ledit_jax.files.readers import read_json
from ledit_jax.weights import describe

RECORD_FILE = "run.json"


def record_start(workdir: Place, config: Config, step: int) -> None:
    """Appends a start at `step` to the JSON list in WORKDIR/run.json.

    An entry has `time` (UTC), `step`, `command`, `config`, `versions`, `git` (`revision` and `dirty`, or null where
    the package is not in a checkout) and `devices` (`kind`, `count`, `processes`).
    """
    path = workdir / RECORD_FILE
    starts = read_json(path, list) if path.exists() else []
    entry = describe(config, step) | {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git": git_revision(Path(ledit_jax.__file__).parent),
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
    }
    entry["versions"]["python"] = platform.python_version()
    write_json(path, [*starts, entry])


def git_revision(package: Path) -> dict[str, Any] | None:
    """{"revision": commit, "dirty": whether tracked files differ from it}; None if git does not track the package."""
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # installed, perhaps below some other project's checkout
    revision = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ":/")
    return None if revision is None or changes is None else {"revision": revision, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
