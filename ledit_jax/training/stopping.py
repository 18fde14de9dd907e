"""When a run is asked to stop: SIGTERM (preemption), SIGHUP and Ctrl-C, agreed upon by all processes of the run."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

GRACE = 60.0
"""Seconds after a signal that a step of several processes may take, or as long as the longest of the run."""
_LOOK = 0.5
_NOTICE = "RECEIVED_PREEMPTION_NOTICE"
"""Where jax's preemption service tells all processes that one of them got a signal."""


class StopRequest:
    """Asked after every step whether to stop there; all processes of a run get the same answer."""

    def __init__(self) -> None:
        self.received = False
        self._began: float | None = None
        self._longest: float | None = None

    def reached(self, step: int) -> bool:
        """Whether to stop now that `step` steps are behind us. To be called once for each step, in order."""
        if jax.process_count() > 1:
            # The notice that any process got has travelled to all, and names a step that none has passed.
            self.received = multihost_utils.reached_preemption_sync_point(step)
        return self.received

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """Around a step: once a run over several processes has been told to stop, it is not waited for without end."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            took, self._began = time.monotonic() - self._began, None
            self._longest = 0.0 if self._longest is None else max(self._longest, took)  # the first one compiles

    def overdue(self, noticed: float) -> bool:
        """Whether a step goes on that began, like the notice, too long ago."""
        began = self._began
        return began is not None and time.monotonic() - max(began, noticed) > max(GRACE, 2 * (self._longest or 0))


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
    done = threading.Event()
    if jax.process_count() > 1:
        threading.Thread(target=_watch, args=(request, done), daemon=True).start()
    try:
        yield request
    finally:
        done.set()
        for number, handler in previous.items():
            # A signal that was obeyed is not obeyed twice, on the way out of a program.
            ended = told and getattr(handler, "ends_program", False)
            signal.signal(number, signal.SIG_IGN if ended else handler)


def _watch(request: StopRequest, done: threading.Event) -> None:
    """Ends this process if a step does not, in which all processes wait for one whose data does not come.

    There is nothing that it could save alone. It runs beside the main thread, which may wait in a collective.
    """
    noticed: float | None = None
    while not done.wait(_LOOK):
        if noticed is None:
            noticed = time.monotonic() if _is_preempted() else None
        elif request.overdue(noticed):
            waited = time.monotonic() - noticed
            _say(
                f"error: stopped by a signal, and without another checkpoint, since a step did not end in {waited:.0f} "
                "s (does the data of a process hang?): the same command goes on from the last one"
            )
            for child in multiprocessing.active_children():
                child.kill()
            _wait_for_others()
            os._exit(1)


def _wait_for_others() -> None:
    """All leave at once: jax ends a process whose peers are gone with pages of its own."""
    from jax._src import distributed

    with contextlib.suppress(Exception):  # one that is gone already, or a version without all this
        distributed.global_state.client.wait_at_barrier("ledit_jax_leaves", 5000)


def _is_preempted() -> bool:
    """Whether any process got a signal. jax has no public way to ask that without being at a step's end."""
    from jax._src import distributed

    try:
        return bool(distributed.global_state.client.key_value_try_get(_NOTICE))
    except Exception:  # jax's error for a key that is not there; or a version without all this, which waits on
        return False


def _say(line: str) -> None:
    """Not by logging: a handler may have interrupted it in the middle of a line."""
    os.write(2, f"{line}\n".encode())
