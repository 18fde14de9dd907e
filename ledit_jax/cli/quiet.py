"""What goes to the terminal: what it can show, and nothing of libraries of which our last line says the essence."""

import logging
import sys

import absl.logging


def set_up_streams() -> None:
    """Characters that a terminal lacks become "?". Of libraries' logs only warnings: Orbax logs every file it touches.

    No tracebacks of threads and tasks that a full disk ends: Orbax raises those errors as well. And it closes its event
    loop at the first, so that each write that ends later would print another one.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    absl.logging.set_verbosity(absl.logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    absl.logging.get_absl_handler().addFilter(_is_said_here_alone)
    sys.unraisablehook = _print_but_closed_loops


def _is_said_here_alone(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


def _print_but_closed_loops(unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
