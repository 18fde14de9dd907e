"""Small files that are whole or not there at all, whatever kills the process that writes them."""

import os
import socket
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes aside and renames; processes that write the same file at once do not get in each other's way."""
    aside = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
