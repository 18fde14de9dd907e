"""How a command ends: signals, exit codes, and one line for a cause that lies outside the program."""

import errno
import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ledit_jax.errors import one_line
from ledit_jax.files.refusals import find_refusal
from ledit_jax.signals import SIGNALS, ending_signals, leave_at_once

_RAN_OUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EPERM, errno.ESTALE, errno.ENOTCONN)
"""What happens to a request that could be met."""


def call(main: Callable[[], None]) -> None:
    main()
    ignore_signals()  # all is done, and the exit code should say so


def end_on_signals() -> None:
    """Makes SIGTERM and SIGHUP (but not under nohup) end the program as Ctrl-C does; a second one ends it at once."""

    def end(number: int, frame: object) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            leave_at_once(number, frame)
        raise KeyboardInterrupt(signal.Signals(number).name)

    def send_again(unraisable: "sys.UnraisableHookArgs") -> None:
        """Python drops what is raised while it collects garbage, where jax has a callback, or deletes an object."""
        nonlocal seen
        if str(unraisable.exc_value) == "Event loop is closed":
            return  # of arrays whose writing ended after that of another had failed, which is told
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            return sys.__unraisablehook__(unraisable)
        seen = 0
        number = signal.Signals[str(unraisable.exc_value) or "SIGINT"]
        main = threading.main_thread().ident
        threading.Timer(0.01, signal.pthread_kill, [main, number]).start()  # once Python is out of there

    seen = 0
    end.ends_program = True  # for those who take over while they save, see ledit_jax/training/stopping.py
    sys.unraisablehook = send_again
    for number in ending_signals():
        signal.signal(number, end)


def ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave(code: int) -> None:
    """Without an orderly exit, which waits for the threads of libraries."""
    sys.stdout.flush()
    os._exit(code)


def nobody_reads() -> bool:
    """Whether the reader of standard output is gone, as `head` is when it has its lines; the rest goes nowhere then."""
    output = select.poll()
    output.register(sys.stdout, 0)
    if not any(event & select.POLLERR for _, event in output.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def cause_outside(error: BaseException | None) -> str | None:
    """What the system or the device refused, in a line; None for a fault of ours."""
    while error is not None:
        text = one_line(error)
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
            what = text[:200] or "of this process"
            return f"memory ran out ({what}): use smaller images or batches, or fewer workers"
        if isinstance(error, OSError):
            place = error.filename or os.getcwd()
            return f"{error.filename or 'the system'}: {error.strerror or text}{_space(error, place)}"
        if refusal := find_refusal(error):
            return f"{refusal.strerror}: {text[:300]}"
        error = error.__cause__
    return None


def _space(error: OSError, place: str) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    folder = next(path for path in [Path(place).absolute(), *Path(place).absolute().parents] if path.is_dir())
    return f" ({shutil.disk_usage(folder).free / 2**20:,.0f} MiB free in {folder}): make room, and run it again"


def exit_code(error: BaseException) -> int:
    """2 for a request that cannot be met, 1 where a disk ran full or went away on the way."""
    return 1 if isinstance(error, OSError) and error.errno in _RAN_OUT else 2


def exit_with(message: str, code: int) -> None:
    print_error(message)
    sys.exit(code)


def print_error(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
