"""Checkpoints of ours in a bucket, gs://bucket/run, copied into the cache to be read."""

from pathlib import Path
from typing import Any

from ledit_jax.errors import CheckpointError
from ledit_jax.files import as_place, local_copy, write_whole
from ledit_jax.files.bucket import reaching
from ledit_jax.weights.found import is_whole


def fetch_bucket(address: str, cache: Path) -> Path:
    """A copy in `cache` of the newest whole checkpoint of a workdir, of a folder of steps, or with one step.

    A checkpoint that was written anew is copied anew. Raises CheckpointError for an address without one, or that
    cannot be read.
    """
    with reaching(address, CheckpointError):
        root = as_place(address)
        if (root / "checkpoints").is_dir():
            root = root / "checkpoints"
        step = root if is_whole(root) else _newest(root, address)
        copy = Path(local_copy(str(step), cache))
        about = step.parent / "about.json"
        if about.is_file():
            write_whole(copy.parent / about.name, about.read_text())
    return copy


def _newest(root: Any, address: str) -> Any:
    names = [path.name for path in root.iterdir() if path.name.isdecimal()] if root.is_dir() else []
    whole = (root / name for name in sorted(names, key=int, reverse=True) if is_whole(root / name))
    if (found := next(whole, None)) is None:
        raise CheckpointError(f"{address} holds no checkpoint of ours: give a workdir of train.py in a bucket")
    return found
