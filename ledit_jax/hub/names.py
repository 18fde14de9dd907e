"""Names of models: `hf://org/name@revision/folder`, `org/name`, and those of the files that DiT's authors released."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ledit_jax.errors import CheckpointError

SCHEME = "hf://"
DIT_FILES = ("DiT-XL-2-256x256.pt", "DiT-XL-2-512x512.pt")
"""What DiT's own download.py knows."""
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"({_WORD}/{_WORD})(?:@([^/@]+))?((?:/[^/@]+)*)/?")


@dataclass(frozen=True)
class HubName:
    """A model of the hub, or a folder or a file in it."""

    repo: str
    """org/name"""
    revision: str = "main"
    """A branch, a tag or a commit."""
    path: str = ""
    """Below the repository's root; empty for all of it."""

    def __str__(self) -> str:
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"{SCHEME}{self.repo}{at}{'/' if self.path else ''}{self.path}"


def parse(name: str | Path, revision: str | None = None, *, bare: bool = False) -> HubName | None:
    """The model of the hub that a name means; None for a place on the disk.

    A slash in a revision is written %2F. bare: whether org/name means one where no file is called so. Raises
    CheckpointError for a name that begins with hf:// and is none.
    """
    text = str(name)
    match = _NAME.fullmatch(text.removeprefix(SCHEME))
    if not text.startswith(SCHEME) and (not bare or match is None or match[3] or os.path.exists(text)):
        return None
    if match is None or {"..", "."} & set(match[3].split("/")):
        raise CheckpointError(f"{text:.200} is no model of the hub: write hf://org/name, or hf://org/name@revision")
    given = (match[2] or "").replace("%2F", "/")
    if revision and given and revision != given:
        raise CheckpointError(
            f"{text} names the revision {given}, and revision={revision} another one: give one of them"
        )
    return HubName(match[1], revision or given or "main", match[3].strip("/"))
