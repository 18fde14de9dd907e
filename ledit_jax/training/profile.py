"""A trace of some steps of a run, for TensorBoard's profiler or Perfetto."""

import logging
import re
from pathlib import Path
from typing import Any

import jax

from ledit_jax.errors import ConfigError

logger = logging.getLogger(__name__)


def parse_profile(text: str, num_steps: int) -> tuple[int, int]:
    """(first step, number of steps) of START:COUNT. Raises ConfigError for what the run cannot trace."""
    start, _, count = text.partition(":")
    if not all(re.fullmatch("[0-9]{1,9}", number) for number in (start, count)) or not int(count):
        raise ConfigError(f"profile={text[:40]} must be START:COUNT, two whole numbers, as in 20:5")
    if int(start) + int(count) > num_steps:
        raise ConfigError(f"profile={text} reaches beyond train.num_steps={num_steps}: start earlier")
    return int(start), int(count)


class Profiler:
    """Traces steps start .. start + count - 1 (0 is a run's first) into `folder`; with no span it does nothing."""

    def __init__(self, folder: Path, span: tuple[int, int] | None, first_step: int):
        self._folder, self._span, self._tracing = folder, span, False
        if span and first_step > span[0]:
            logger.info(f"profile={span[0]}:{span[1]} lies behind: this run goes on at step {first_step}")

    def before(self, step: int) -> None:
        """Called before each step is dispatched."""
        if self._span and step == self._span[0]:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # calls of Python would be most of a trace, and slow what is measured
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._tracing = True

    def after(self, step: int, results: Any) -> None:
        """Called after each step is dispatched, with something that is ready when its work is done."""
        if self._tracing and step + 1 == sum(self._span):
            jax.block_until_ready(results)
            self.close()
            logger.info(f"traced {self._span[1]} steps from step {self._span[0]} on into {self._folder}")

    def close(self) -> None:
        """Ends a trace that is under way, as when a run is stopped within it."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
