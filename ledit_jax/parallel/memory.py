"""What memory there is, so that what certainly does not fit is refused at once, with an estimate."""

import contextlib
import os
import resource
from collections.abc import Sequence
from pathlib import Path

import jax

from ledit_jax.errors import ConfigError

_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux tells a container its limit, by the second and by the first version of control groups."""


def host_memory() -> int:
    """Bytes that this process may use: of the machine, or less where a container or `ulimit` says so."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), resource.getrlimit(resource.RLIMIT_AS)[0]]
    for file in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit, which says "max"
            limits.append(int(Path(file).read_text()))
    return min(limit for limit in limits if limit > 0)


def device_memory(devices: Sequence[jax.Device]) -> int:
    """Bytes of all these devices together; CPU devices share their machine's. Those of other processes are alike."""
    ours = [device for device in devices if device.process_index == jax.process_index()]
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in ours]
    here = sum(limits) if limits and all(limits) else host_memory()
    return here * len({device.process_index for device in devices})


def check_fits(what: str, least: int, memory: int, advice: str) -> None:
    """Raises ConfigError where `least` bytes are more than there are."""
    if least > memory:
        raise ConfigError(
            f"{what} need {least / 2**30:,.1f} GiB of memory or more, and there are {memory / 2**30:,.1f}: {advice}"
        )
