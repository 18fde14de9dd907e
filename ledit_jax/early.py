"""Imported by the scripts before all else: what a signal does in the seconds that the other imports take."""

import signal
import sys

from ledit_jax.signals import ending_signals, leave_at_once


def _is_worker() -> bool:
    """Whether this is a process of Python's multiprocessing, which has its parent's script for a main module."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


if not _is_worker():
    for _number in ending_signals():
        signal.signal(_number, leave_at_once)
