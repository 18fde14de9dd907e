"""Several processes as one run: how they find each other, which of them speaks, and how they stop together."""

import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ledit_jax.errors import CheckpointError, ConfigError, DataError, LEDiTError, OutputError, StartTimeout

T = TypeVar("T")

_ARGUMENTS = ("coordinator_address", "num_processes", "process_id")
_PREEMPTION = "jax_enable_preemption_service"
# Launchers say here how many tasks they started. For one task jax would join it to itself and, on GPUs, hide all
# devices but the first.
_TASK_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


def start_processes(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 300,
    stop_together: bool = True,
) -> None:
    """Joins this process to the others of its run, before anything else touches a device.

    With all three given, process 0 listens at coordinator_address ("host:port") and the others connect to it. With
    none, jax looks for a TPU pod, SLURM, Open MPI or Kubernetes, and a process on its own stays on its own.
    timeout: seconds to wait for all to arrive. stop_together: jax takes SIGTERM over, to tell every process of it, as
    training needs. Raises StartTimeout if not all arrive, and ConfigError for arguments that cannot be.
    """
    given = dict(zip(_ARGUMENTS, (coordinator_address, num_processes, process_id), strict=True))
    options = {name: value for name, value in given.items() if value is not None}
    if options:
        _check(given)
        options["cluster_detection_method"] = "deactivate"
    elif any(os.environ.get(name) == "1" for name in _TASK_COUNTS):
        return
    if hasattr(jax.config, _PREEMPTION):  # jax before 0.8 always takes the signal over
        jax.config.update(_PREEMPTION, stop_together)
    failure = _initialize(options, timeout)
    if failure is None:
        _only_process_zero_speaks()
    elif options or "coordinator_address should be defined" not in str(failure):
        raise ConfigError(f"starting several processes failed: {failure}") from failure


def is_main_process() -> bool:
    """Whether this process is the one that logs, and writes what is written once: metrics and images."""
    return jax.process_index() == 0


def gather_json(value: Any) -> list[Any]:
    """Every process's value, which JSON can hold, in the order of their indices; all of them must call it."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(text.size))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: text.size] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def main_process_first(action: Callable[[], T]) -> T | None:
    """What `action` returns in the main process, and None in the others, which wait until it is done.

    What it raises there, all raise: an error of ours as it is, another one as a LEDiTError.
    """
    value, failure = None, None
    if is_main_process():
        try:
            value = action()
        except Exception as error:
            failure = error
    told = gather_json(failure and [type(failure).__name__, str(failure)])[0]
    if failure is not None:
        raise failure
    if told is not None:
        kinds = {kind.__name__: kind for kind in (ConfigError, DataError, OutputError, CheckpointError)}
        name, message = told
        raise kinds[name](message) if name in kinds else LEDiTError(f"process 0 failed: {name}: {message}")
    return value


def check_shared(folder: Path) -> None:
    """Raises OutputError, in every process, unless all of them see the same `folder` and can write there."""
    mark = folder / f".shared-{gather_json(os.urandom(8).hex())[0]}"
    main_process_first(mark.touch)
    seen = gather_json(mark.exists())
    if is_main_process():
        mark.unlink()
    if not all(seen):
        raise OutputError(
            f"{folder} is not the same folder for all processes: process {seen.index(False)} does not see "
            "what process 0 writes there; use a file system that all of them mount"
        )


def shard_arrays(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Arrays laid out over the devices of all processes, each of which has the same whole arrays, or their parts."""

    def place(array: Any) -> jax.Array:
        if jax.process_count() == 1 or (isinstance(array, jax.Array) and not array.is_fully_addressable):
            return jax.device_put(array, sharding)
        # device_put would send the whole array to the other processes, to compare.
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(place, tree)


def gather(array: jax.Array) -> np.ndarray:
    """A global array as a whole NumPy array, in every process; all of them must call it."""
    return np.asarray(array) if array.is_fully_addressable else multihost_utils.process_allgather(array, tiled=True)


def _check(given: dict[str, Any]) -> None:
    missing = [name for name, value in given.items() if value is None]
    if missing:
        have = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        raise ConfigError(f"{have} without {' and '.join(missing)}: give all three, or none to have them detected")
    address, count, index = given.values()
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not port.isascii() or len(port) > 5 or not 0 < int(port) < 65536:
        raise ConfigError(f"coordinator_address={address} must be host:port, as in 10.0.0.1:8476")
    if count < 1:
        raise ConfigError(f"num_processes={count} must be at least 1")
    if not 0 <= index < count:
        raise ConfigError(f"process_id={index} of num_processes={count}: use 0 to {count - 1}")


def _initialize(options: dict[str, Any], timeout: int) -> Exception | None:
    """Runs jax.distributed.initialize in a thread; returns what it raised. Raises StartTimeout after `timeout`.

    In a thread because jax aborts the whole process, with a stack trace, when its own time is over.
    """
    failures: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(**options, initialization_timeout=timeout + 60)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise StartTimeout(_why_late(options, timeout))
    return failures[0] if failures else None


def _why_late(options: dict[str, Any], timeout: int) -> str:
    if not options:
        return f"the other processes of this job did not all arrive within {timeout} s: look at their logs"
    address, count, index = (options[name] for name in _ARGUMENTS)
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return (
            f"coordinator_address={address} could not be reached within {timeout} s ({error.strerror or error}): "
            "is process 0 running there, and is the port open?"
        )
    return (
        f"process {index} waited {timeout} s at {address} and not all of num_processes={count} arrived: "
        "start every process, each with a process_id of its own"
    )


def _only_process_zero_speaks() -> None:
    if not is_main_process():
        logging.getLogger("ledit_jax").setLevel(logging.WARNING)
