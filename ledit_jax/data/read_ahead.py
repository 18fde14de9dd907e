"""Batches made before they are asked for, by Grain's threads or worker processes; a wait for one can always be ended.

Grain waits without end for workers that are gone in ways it does not know, and in a call that nobody can look into. So
its iterator runs in a thread here, and whoever needs a batch looks up from waiting now and then.
"""

import logging
import multiprocessing
import os
import queue
import re
import signal
import threading
import time
from typing import Any

import grain
from absl import flags

from ledit_jax.errors import DataError

logger = logging.getLogger(__name__)

_THREADS = 4
"""Batches made at a time, and kept ready, by each reading process. Grain's default of 500 counts batches here."""
_LOOK = 0.05
"""Seconds between looks at what became of the workers."""
_GONE = 2.0
"""Seconds without a batch after which workers that have ended count as lost."""
_START = 120.0
"""Seconds after which workers that nobody has seen count as lost: Grain forgets one that cannot be sent its data."""
_CLOSING = 5.0
"""Seconds that batches in the making are waited for when nobody wants them any more."""


class ReadAhead:
    """Iterates over a dataset in order while threads, or `num_workers` processes, make what comes next.

    What the dataset's functions raise is raised by `next` and `ready`, and DataError for workers that end by
    themselves.
    """

    def __init__(self, batches: grain.MapDataset, num_workers: int):
        num_workers = min(_bounded(num_workers), len(batches))
        self._workers = _Workers(num_workers)
        self._batches = iter(_dataset(batches, num_workers))
        self._made: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(1)
        self._waiting: tuple[Any, BaseException | None] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._make, daemon=True)
        self._thread.start()

    def __iter__(self) -> "ReadAhead":
        return self

    def __next__(self) -> Any:
        while not self.ready(_LOOK):
            pass
        batch, error = self._waiting
        if error is not None:
            raise error
        self._waiting = None
        return batch

    def ready(self, timeout: float) -> bool:
        """Whether `next` has something at once, waiting up to so many seconds for it. Raises DataError as `next`."""
        if self._waiting is None:
            try:
                self._waiting = self._made.get(timeout=min(timeout, _LOOK))
                self._workers.delivered()
            except queue.Empty:
                self._workers.check()
        return self._waiting is not None

    def close(self) -> None:
        """Ends the reading threads and worker processes, or leaves them behind where they do not end."""
        self._closed.set()
        self._thread.join(0 if self._workers.lost else _CLOSING)
        if self._thread.is_alive():
            self._workers.kill()
        closing = threading.Thread(target=self._batches.close, daemon=True)
        closing.start()
        closing.join(_CLOSING)

    def _make(self) -> None:
        error = None
        while error is None and not self._closed.is_set():
            batch = None
            try:
                batch = next(self._batches)
            except BaseException as raised:  # StopIteration too
                error = _explained(raised)
            while not self._closed.is_set():
                try:
                    self._made.put((batch, error), timeout=_LOOK)
                    break
                except queue.Full:
                    pass


class _Workers:
    """The processes that Grain starts, as seen from outside."""

    def __init__(self, count: int):
        self.lost = False
        self._count, self._others = count, set(multiprocessing.active_children())
        self._last = time.monotonic()
        self._started = False

    def delivered(self) -> None:
        self._last = time.monotonic()

    def check(self) -> None:
        """Raises DataError when all have ended and left nothing. Grain itself notices one that ended with an error."""
        if not self._count:
            return
        alive = self._alive()
        self._started = self._started or bool(alive)
        if alive:
            self._last = time.monotonic()
        elif time.monotonic() - self._last > (_GONE if self._started else _START):
            self.lost = True
            raise DataError(f"data.num_workers={self._count}: the worker processes ended {_ADVICE}")

    def kill(self) -> None:
        """Ends those that wait for something themselves, such as a disk that does not answer."""
        for process in self._alive():
            process.kill()

    def _alive(self) -> set[multiprocessing.process.BaseProcess]:
        children = set(multiprocessing.active_children()) - self._others
        return {child for child in children if child.name.startswith("grain-")}


_ADVICE = "by themselves: what they printed is above, and data.num_workers=0 reads without them"


def _explained(error: BaseException) -> BaseException:
    """What Grain says of a worker that ended is about Grain."""
    ended = re.search(r"Worker process was terminated unexpectedly with exit code (-?\d+)", str(error))
    if not ended:
        return error
    code = int(ended[1])
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
    memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
    return DataError(f"data.num_workers: a worker process ended ({name}{memory}) {_ADVICE}")


def _dataset(batches: grain.MapDataset, num_workers: int) -> grain.IterDataset:
    threads = 1 if num_workers else _THREADS
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
    if num_workers:
        if not flags.FLAGS.is_parsed():  # in a notebook or a test; Grain reads its own flags before it starts
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=2)
        dataset = dataset.mp_prefetch(options, worker_init_fn=_live_with_parent)
    return dataset


def _bounded(num_workers: int) -> int:
    """At most one for each core that this process may use: more only take memory. Batches are the same."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_workers > cores:
        logger.info(f"data.num_workers={num_workers} is more than the {cores} cores there are: {cores} are started")
    return min(num_workers, cores)


def _live_with_parent(worker: int, count: int) -> None:
    """Called in each worker: it ends when its parent does, however that ends, and not before.

    Terminals and schedulers signal a whole group of processes; but the parent decides what to do, and needs batches
    until then. It ends its workers with SIGKILL.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
