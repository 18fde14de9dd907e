"""Where a run's numbers go: metrics.jsonl, TensorBoard, and a progress bar or, without a terminal, log lines."""

import json
import logging
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from tqdm import tqdm

from ledit_jax.config import TrainConfig
from ledit_jax.files import write_whole
from ledit_jax.files.refusals import gone, writing

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
_TIMED_STEPS = 10
"""Steps after which the time of a run is estimated."""


@runtime_checkable
class MetricSink(Protocol):
    """Where else a run's numbers go; its main process calls it alone."""

    def open(self, workdir: Path, resumed_step: int) -> None:
        """Called before the first step."""

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Called for every logged step."""

    def close(self) -> None:
        """Called at the end, whatever it is."""


def is_logged(config: TrainConfig, step: int) -> np.bool_:
    """Whether the metrics of this step are written; NumPy's, so that a compiled step takes it as an argument."""
    return np.bool_(step % config.log_every == 0 or step == config.num_steps)


class MetricWriter:
    """Appends a JSON object per logged step to `workdir/metrics.jsonl`, and TensorBoard events beside it.

    In a folder of this machine: for a bucket, that is a `Mirror`.
    """

    def __init__(self, workdir: Path, resumed_step: int, sinks: Sequence[MetricSink] = ()):
        """Drops what a killed run logged after the checkpoint it resumes from: those steps run again."""
        self.sinks = sinks
        self.path = workdir / METRICS_FILE
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            rows = [line for line in lines if _step_of(line) <= resumed_step]
            write_whole(self.path, "".join(f"{row}\n" for row in rows))
        with writing(self.path):
            self.file = self.path.open("a", buffering=1)
        self.tensorboard = _Events(workdir, resumed_step + 1)
        for sink in sinks:
            sink.open(workdir, resumed_step)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Writes one step's metrics to all. Raises OutputError, as for a full disk."""
        if not self.path.exists():  # the system would let us write on, to a file without a name
            raise gone(self.path.parent)
        with writing(self.path):
            self.file.write(json.dumps({"step": step, **metrics}) + "\n")
        self.tensorboard.write(step, metrics)
        for sink in self.sinks:
            sink.write(step, metrics)

    def close(self) -> None:
        """Flushes and closes all."""
        with writing(self.path):
            self.file.close()
        self.tensorboard.close()
        for sink in self.sinks:
            sink.close()


class _Events:
    """A TensorBoard file. Its usual writer has a thread, which a full disk ends, and then waits for that for ever."""

    def __init__(self, workdir: Path, first_step: int):
        """Events of an earlier file from `first_step` on count no more."""
        # Here, because it imports PyTorch where that is installed.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        self._event, self._scalar, self._path = Event, scalar, workdir / "events"
        with writing(self._path):
            self._file = EventsWriter(str(self._path))
            self._file.write_event(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, metrics: dict[str, float]) -> None:
        with writing(self._path):
            for name, value in metrics.items():
                self._file.write_event(self._event(step=step, wall_time=time.time(), summary=self._scalar(name, value)))
            self._file.flush()

    def close(self) -> None:
        with writing(self._path):
            self._file.close()


class Progress:
    """Step, loss, steps/s and time left: a bar on a terminal, else a line at every logged step."""

    def __init__(self, first_step: int, num_steps: int):
        self.bar = tqdm(total=num_steps, initial=first_step, unit="step", desc="train", disable=None)
        self.first_step, self.num_steps = first_step, num_steps
        self.since, self.since_step = time.perf_counter(), first_step
        self.times: list[float] = []

    def advance(self, step: int, loss: float) -> None:
        """Called after every step; after ten of them, says once how long all will take."""
        if len(self.times) <= _TIMED_STEPS:
            self.times.append(time.perf_counter())
            if len(self.times) == _TIMED_STEPS + 1 and step < self.num_steps:
                logger.info(self._estimate(step))
        self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self.bar.update(step - self.bar.n)

    def _estimate(self, step: int) -> str:
        """By the median, since some of the steps had to wait for the compiler."""
        each = statistics.median(after - before for before, after in zip(self.times, self.times[1:], strict=False))
        left = tqdm.format_interval((self.num_steps - step) * each)
        return f"{each:.3g} seconds a step: about {left} for the {self.num_steps - step:,} steps that are left"

    def rate(self, step: int) -> float:
        """Steps per second since the last call."""
        now = time.perf_counter()
        rate = (step - self.since_step) / max(now - self.since, 1e-9)
        self.since, self.since_step = now, step
        return rate

    def log(self, step: int, loss: float, rate: float) -> None:
        """One line for logs; the bar already shows it on a terminal."""
        if self.bar.disable:
            left = tqdm.format_interval((self.num_steps - step) / max(rate, 1e-9))
            logger.info(f"step {step}/{self.num_steps}  loss {loss:.4f}  {rate:.2f} steps/s  {left} left")

    def close(self) -> None:
        """Leaves the finished bar on the screen."""
        self.bar.close()


class Stopwatch:
    """Time spent within `with stopwatch:`, as a share of all time."""

    def __init__(self) -> None:
        self.spent, self.since = 0.0, time.perf_counter()

    def __enter__(self) -> None:
        self.entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.spent += time.perf_counter() - self.entered

    def share(self) -> float:
        """Share, 0..1, since the last call, or since it was made."""
        now = time.perf_counter()
        share = self.spent / max(now - self.since, 1e-9)
        self.spent, self.since = 0.0, now
        return share


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):  # the line a kill cut short, or no line of ours
        return float("inf")
