"""What libraries print of their own accord, of which our last line says the essence."""

import logging
import sys

import absl.logging


def hush_libraries() -> None:
    """Of their logs only warnings (Orbax logs every file it touches); no tracebacks of threads that a full disk ends.

    Orbax raises those errors as well. And it closes its event loop at the first: each write that ends later would
    print another traceback.
    """
    absl.logging.set_verbosity(absl.logging.WARNING)
    absl.logging.get_absl_handler().addFilter(_is_said_here_alone)
    sys.unraisablehook = _print_but_closed_loops


def _is_said_here_alone(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


def _print_but_closed_loops(unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
