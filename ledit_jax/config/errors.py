"""The error for a setting that cannot work, and the help it gives."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A setting that cannot work. The message names the field, the value and the mend, on one line."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest to a mistyped one, as the tail of an error message."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
