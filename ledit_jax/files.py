"""Files that are whole or not there at all, whatever kills the process that writes them."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


def write_whole(path: Path, text: str) -> None:
    """Writes aside and renames; processes that write the same file at once do not get in each other's way."""
    aside = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def write_json(path: Path, values: Any) -> None:
    """`write_whole` of JSON, indented."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the name `path` once the block is done.

    For one writer at a time: what a kill leaves of a large file, the next one writes over.
    """
    aside = path.with_name(f".{path.name}.partial")
    with open(aside, "wb") as file:
        yield file
    os.replace(aside, path)
