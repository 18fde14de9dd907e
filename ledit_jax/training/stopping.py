"""When a run is asked to stop: SIGTERM (preemption), SIGHUP and Ctrl-C, agreed upon by all processes of the run."""

import contextlib
import os
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Asked after every step whether to stop there; all processes of a run get the same answer."""

    def __init__(self) -> None:
        self.received = False

    def reached(self, step: int) -> bool:
        """Whether to stop now that `step` steps are behind us. To be called once for each step, in order."""
        if jax.process_count() > 1:
            # The notice that any process got has travelled to all, and names a step that none has passed.
            self.received = multihost_utils.reached_preemption_sync_point(step)
        return self.received


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turns SIGTERM, SIGHUP and SIGINT into a StopRequest, as long as the run steps or saves.

    Schedulers repeat a signal, and so do people: a second one changes nothing, and a third Ctrl-C interrupts at once.
    """
    request, told, interrupts = StopRequest(), False, 0

    def stop(number: int, frame: object) -> None:
        nonlocal told, interrupts
        interrupts += number == signal.SIGINT
        name = signal.Signals(number).name
        if number == signal.SIGINT and interrupts == 2:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _say(f"{name}: still saving; a third Ctrl-C leaves without")
        elif not told:
            _say(f"{name}: stopping after this step, then saving")
        told = True
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            request.received = True

    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    if jax.process_count() > 1:
        # SIGTERM belongs to jax's preemption service, which told the system so when it started.
        numbers.remove(signal.SIGTERM)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup
        numbers.remove(signal.SIGHUP)
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            # A signal that was obeyed is not obeyed twice, on the way out of a program.
            ended = told and getattr(handler, "ends_program", False)
            signal.signal(number, signal.SIG_IGN if ended else handler)


def _say(line: str) -> None:
    """Not by logging: a handler may have interrupted it in the middle of a line."""
    os.write(2, f"{line}\n".encode())
