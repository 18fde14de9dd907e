"""Checkpoints of ours in a bucket, gs://bucket/run, copied into the cache to be read. Runs do not write there."""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ledit_jax.errors import CheckpointError, LEDiTError
from ledit_jax.files.refusals import REFUSALS
from ledit_jax.hub.cached import made_once
from ledit_jax.progress import progress_bar

_MARK = "_CHECKPOINT_METADATA"  # Orbax writes it last, with the time


def is_bucket(name: str | Path) -> bool:
    """Whether it is an address that etils reads."""
    return re.match(r"(gs|s3|az)://", str(name)) is not None


def fetch_bucket(address: str, cache: Path) -> Path:
    """A folder in `cache` with the newest whole checkpoint of a workdir, of a folder of steps, or with one step.

    etils reads it: by TensorFlow where that is installed, else by fsspec, which needs gcsfs, s3fs or adlfs. A
    checkpoint that was written anew is copied anew. Raises CheckpointError for an address without one, or that cannot
    be read.
    """
    from etils import epath

    with _explained(address):
        root = epath.Path(address)
        if (root / "checkpoints").is_dir():
            root = root / "checkpoints"
        step = root if (root / _MARK).exists() else _newest(root, address)
        mark = hashlib.sha256(f"{step} ".encode() + (step / _MARK).read_bytes()).hexdigest()[:16]
        return made_once(cache / "buckets" / f"{step.name}-{mark}", lambda aside: _copy(step, aside, address))


def _newest(root: Any, address: str) -> Any:
    names = [path.name for path in root.iterdir() if path.name.isdecimal()] if root.is_dir() else []
    whole = [root / name for name in sorted(names, key=int, reverse=True) if (root / name / _MARK).exists()]
    if not whole:
        raise CheckpointError(f"{address} holds no checkpoint of ours: give a workdir of train.py in a bucket")
    return whole[0]


def _copy(step: Any, aside: Path, address: str) -> None:
    files = dict(_files(step, aside / (step.name if step.name.isdecimal() else "0")))
    if (step.parent / "about.json").exists():
        files[step.parent / "about.json"] = aside / "about.json"
    with progress_bar(address, len(files), "file") as bar:
        for source, place in files.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as reader, open(place, "wb") as writer:
                shutil.copyfileobj(reader, writer, 2**20)
            bar.update(1)


def _files(source: Any, place: Path) -> Iterator[tuple[Any, Path]]:
    place.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            yield from _files(path, place / path.name)
        else:
            yield path, place / path.name


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except LEDiTError:
        raise
    except Exception as error:  # of whichever library reads this kind of address
        if isinstance(error, OSError) and error.errno in REFUSALS:
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{address} cannot be read ({type(error).__name__}: {reason}): check the name and your rights; without "
            "TensorFlow, gs:// needs gcsfs, s3:// s3fs and az:// adlfs"
        ) from error
