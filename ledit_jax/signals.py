"""The signals that end a command, and how: one line and exit code 1. Nothing here takes time to import."""

import os
import signal

STOPPED = "stopped by {}: what is done is kept, and the same command goes on"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ending_signals() -> list[signal.Signals]:
    """Those that end a program; under nohup SIGHUP does not."""
    return [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


def leave_at_once(number: int, frame: object) -> None:
    """A signal handler. Not `print`: the signal may have come in the middle of one."""
    os.write(2, f"error: {STOPPED.format(signal.Signals(number).name)}\n".encode())
    os._exit(1)
