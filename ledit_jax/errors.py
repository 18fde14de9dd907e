"""Every error that a user can meet. A message is one line: what was given, what is wrong with it, and what to do."""

import difflib
from collections.abc import Iterable, Sequence


class LEDiTError(Exception):
    """The root of all of them: a cause outside this package. Anything else that is raised is a fault of ours."""


class ConfigError(LEDiTError, ValueError):
    """A setting or an argument that cannot work. The message names the field and its value."""


class DataError(LEDiTError, ValueError):
    """Data, or a file that is no checkpoint, which is missing, damaged or of another kind. The message names it."""


class OutputError(LEDiTError, OSError):
    """A place that cannot be written to, or that holds something else. The message names it."""


class CheckpointError(LEDiTError, ValueError):
    """A checkpoint that is missing, half-written, damaged, or does not fit the model. The message names the folder."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint whose files cannot be read, or hold numbers that are none. The message ends "use another one"."""


class ConversionError(CheckpointError):
    """Weights that do not fit the network. Every name at fault is in the attributes, and the first in the message."""

    def __init__(
        self,
        missing: Sequence[str] = (),
        unmapped: Sequence[str] = (),
        wrong_shape: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]] = (),
        place: object = "",
    ):
        """Names that are needed and not there, names that nothing takes, and (name, shape there, shape needed).

        place: the file, where it is known.
        """
        self.missing, self.unmapped, self.wrong_shape = tuple(missing), tuple(unmapped), tuple(wrong_shape)
        shapes = [f"{name} is {found} and must be {needed}" for name, found, needed in wrong_shape]
        parts = {"missing": self.missing, "not part of this model": self.unmapped, "wrong shape": shapes}
        faults = "; ".join(f"{what} ({len(names)}): {_first(names)}" for what, names in parts.items() if names)
        where = f"{place}: " if place else ""
        super().__init__(f"{where}weights do not fit the model: check the file, and that it is of this model: {faults}")


class StartTimeout(LEDiTError):
    """The processes of a run did not find each other in time; jax still waits for them in a thread of its own."""


class TrainingStopped(LEDiTError):
    """A run that must not go on. The message names the step and the last good checkpoint."""


def one_line(error: BaseException) -> str:
    """What it says, without line breaks."""
    return " ".join(str(error).split())


def named(error: BaseException) -> str:
    """An error of somebody else's in a line: its kind, and the first 200 letters of what it says, if anything."""
    return f"{type(error).__name__}: {one_line(error)[:200]}".removesuffix(": ")


def _first(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest to a mistyped one, as the tail of an error message."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
