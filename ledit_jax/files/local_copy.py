"""Data in a bucket, copied to this machine once, before it is read: a read of the network for each record is slow."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ledit_jax.errors import DataError
from ledit_jax.files.bucket import as_place, is_bucket, open_bucket, reaching
from ledit_jax.files.once import alone
from ledit_jax.files.refusals import free_bytes, full_disk, writing
from ledit_jax.progress import progress_bar

logger = logging.getLogger(__name__)

_WHOLE = ".whole"
_AT_ONCE = 64
"""Objects that are asked for together."""


def local_copy(name: str, cache: Path | None = None) -> str:
    """A file or a folder of a bucket on this machine; a name of this machine as it is.

    The copy lies in the cache, under what its objects are called, their sizes and versions: one that changed in the
    bucket is copied anew. A copy that was stopped goes on, and processes of one machine wait for the first. Raises
    DataError for an address where nothing is, and OutputError where the cache has no room.
    """
    if not is_bucket(name):
        return name
    address = as_place(name)
    with reaching(address):
        system, root = open_bucket(address)
        found = system.find(root, detail=True)
    if not found:
        raise DataError(f"{address} is not there, or empty: check the name")
    files = {str(PurePosixPath(path).relative_to(PurePosixPath(root))): info for path, info in found.items()}
    files = {name: info for name, info in files.items() if not (name.endswith("/") or info["type"] == "directory")}
    if odd := [name for name in files if ".." in PurePosixPath(name).parts]:
        raise DataError(f"{address} holds {odd[0]}, which is no name of a file: rename it")
    place = (cache or cache_folder()) / "copies" / _key(str(address), files) / PurePosixPath(root).name
    if not (place.parent / _WHOLE).exists():
        with writing(place), alone(place.parent):
            _copy(system, root, files, place)
            (place.parent / _WHOLE).touch()
    return str(place)


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Where things lie that can be made or fetched again: by default where HF_HOME says."""
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_ASSETS_CACHE) / "ledit_jax"


def _key(address: str, files: Mapping[str, Mapping[str, Any]]) -> str:
    told = [[name, info["size"], str(info.get("etag") or info.get("mtime") or "")] for name, info in files.items()]
    return hashlib.sha256(repr((address, sorted(told))).encode()).hexdigest()[:16]


def _copy(system: Any, root: str, files: Mapping[str, Mapping[str, Any]], place: Path) -> None:
    """Each file takes its name once it is whole, so that what is there need not be fetched again."""
    targets = {f"{root}/{name}" if name != "." else root: place / name for name in files}
    sizes = {path: info["size"] for path, info in zip(targets, files.values(), strict=True)}
    missing = [path for path, target in targets.items() if not target.exists()]
    needed, free = sum(sizes[path] for path in missing), free_bytes(place)
    if needed > free:
        raise full_disk(
            f"{place} has no room for the copy of {system.unstrip_protocol(root)} ({needed / 2**20:,.1f} MiB are "
            f"needed and {free / 2**20:,.1f} are free): set HF_HOME to a larger disk, or mount the bucket"
        )
    done = len(targets) - len(missing)
    with progress_bar(f"copy {system.unstrip_protocol(root)}", len(targets), "file", done=done) as bar:
        for group in _groups(missing):
            parts = [targets[path].with_name(f".part-{targets[path].name}") for path in group]
            for part in parts:
                part.parent.mkdir(parents=True, exist_ok=True)
            with reaching(system.unstrip_protocol(root)):
                system.get(group, [str(part) for part in parts])
            for path, part in zip(group, parts, strict=True):
                if part.stat().st_size != sizes[path]:
                    raise DataError(f"{system.unstrip_protocol(path)} changed while it was copied: run it again")
                part.replace(targets[path])
            bar.update(len(group))


def _groups(paths: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(paths), _AT_ONCE):
        yield paths[start : start + _AT_ONCE]
