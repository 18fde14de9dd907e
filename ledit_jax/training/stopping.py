"""When a run is asked to stop: SIGTERM (preemption) and Ctrl-C, agreed upon by all processes of the run."""

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
    """Turns SIGTERM and SIGINT into a StopRequest; a second SIGINT interrupts at once."""
    request = StopRequest()

    def stop(number, frame) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            request.received = True

    # With several processes SIGTERM belongs to jax's preemption service, which told the system so when it started.
    numbers = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
