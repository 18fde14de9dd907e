"""The weights that DiT's authors released, by the names and the address of their download.py."""

import contextlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from ledit_jax.errors import CheckpointError
from ledit_jax.files import check_writable
from ledit_jax.files.refusals import REFUSALS, writing
from ledit_jax.progress import progress_bar

ADDRESS = "https://dl.fbaipublicfiles.com/DiT/models"
BYTES = {"DiT-XL-2-256x256.pt": 2_700_611_775}
"""Of the files whose size others' scripts check; of the other one none was found."""
LEAST_BYTES = 2_700_000_000
"""Of any: DiT-XL/2's 675.1 million parameters in float32, and no less."""
_PIECE = 2**20


def fetch_dit_file(name: str, folder: Path, local_files_only: bool = False) -> Path:
    """The file in `folder`, fetched unless it is there; what a kill or a lost connection left is gone on with.

    Raises CheckpointError where it cannot be fetched, or is not of the size that is known or that the server announces,
    or has less than the weights of a DiT-XL/2 take, and OutputError for a full disk.
    """
    path = folder / name
    if path.is_file():
        return path
    if local_files_only:
        raise CheckpointError(f"{name} is not in the cache, and local_files_only forbids to fetch it")
    check_writable(path)
    part = path.with_name(f"{name}.part")
    with writing(path):
        with _network(name):
            total = _fetch(f"{ADDRESS}/{name}", part)
        size = part.stat().st_size
        if size < total:
            raise CheckpointError(
                f"{name}: {size:,} of {total:,} bytes came: run it again, it goes on where it stopped"
            )
        needed = BYTES.get(name, max(total, LEAST_BYTES))
        if size != needed:
            part.unlink()
            raise CheckpointError(f"{name} is {size:,} bytes, and {needed:,} are needed: fetch it again")
        part.replace(path)
    return path


@contextlib.contextmanager
def _network(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in REFUSALS:
            raise
        raise CheckpointError(
            f"{name} cannot be fetched ({type(error).__name__}: {error}): run it again, it goes on where it stopped"
        ) from error


def _fetch(address: str, part: Path) -> int:
    """Appends to `part` what it lacks; returns the size that it should have then."""
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        return there  # all of it
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            there = 0
        length = int(response.headers.get("Content-Length", 0))
        _write(response, part, there, there + length)
    return there + length


def _write(response: http.client.HTTPResponse, part: Path, there: int, total: int) -> None:
    with (
        open(part, "r+b" if there else "wb") as file,
        progress_bar(part.stem, total // _PIECE, "MiB", there // _PIECE) as bar,
    ):
        file.seek(there)
        while piece := response.read(_PIECE):
            file.write(piece)
            bar.update(len(piece) // _PIECE)
