"""What the scripts share: flags that fail with one clear line, and exit codes.

0 is done (also training that a signal stopped, once everything is saved), 1 a run that had to stop, by a signal or by
something that failed, 2 a request that cannot be met, 141 (of SIGPIPE) output that nobody reads any longer.
"""

import dataclasses
import errno
import logging
import re
import signal
import sys
import traceback
import typing
from collections.abc import Callable
from typing import Any

from absl import app, flags

from ledit_jax.cli.config_file import define_config_flag, explain_key, load_config
from ledit_jax.cli.ending import (
    call,
    cause_outside,
    end_on_signals,
    exit_code,
    exit_with,
    ignore_signals,
    leave,
    nobody_reads,
    print_error,
)
from ledit_jax.cli.quiet import set_up_streams
from ledit_jax.errors import ConfigError, LEDiTError, StartTimeout, TrainingStopped, one_line
from ledit_jax.parallel.processes import start_processes
from ledit_jax.signals import STOPPED

__all__ = [
    "define_compile_only_flag",
    "define_config_flag",
    "define_process_flags",
    "define_setting_flags",
    "finish_compile_only",
    "given_settings",
    "load_config",
    "require",
    "run",
    "start_distributed",
    "whole_numbers",
]


def run(main: Callable[[], None], description: str) -> None:
    """Parses the command line and calls `main`; `description` opens the --help page. Does not return."""
    _set_up_logging()
    end_on_signals()
    sys.modules["__main__"].__doc__ = description
    try:
        app.run(lambda argv: call(main), flags_parser=_parse)
    except KeyboardInterrupt as error:
        ignore_signals()
        print_error(STOPPED.format(str(error) or "SIGINT"))
        leave(1)
    except SystemExit as error:
        # absl ends --help with 1, and help that was given is no failure
        sys.exit(0 if {"--help", "--helpfull", "--helpshort", "-h"} & set(sys.argv) else error.code)
    except TrainingStopped as error:
        exit_with(str(error), 1)
    except StartTimeout as error:
        print_error(str(error))
        leave(2)  # an orderly exit would tear jax's waiting thread down, which prints pages
    except (LEDiTError, flags.Error) as error:
        exit_with(str(error), exit_code(error))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            leave(128 + signal.SIGPIPE)  # quietly, as any program does
        cause = cause_outside(error)
        if cause is None:
            traceback.print_exc()
            cause = f"{type(error).__name__} above is a fault of ledit_jax: please report this, with all of it"
        print_error(cause)
        leave(2 if getattr(error, "errno", None) == errno.ENAMETOOLONG else 1)


def require(*names: str) -> None:
    """Makes flags necessary; an empty value is none."""
    for name in names:
        flags.register_validator(name, lambda value: value not in (None, "", []), f"--{name} is missing, see --help")


def _set_up_logging() -> None:
    """Our own lines plainly."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("ledit_jax")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    set_up_streams()


def define_setting_flags(section: type) -> None:
    """Defines a flag for each field of a config section, with the field's own help text; see `given_settings`."""
    hints = typing.get_type_hints(section)
    define = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    for field in dataclasses.fields(section):
        hint = hints[field.name]
        kind = flags.DEFINE_list if typing.get_origin(hint) is tuple else define.get(hint, flags.DEFINE_string)
        kind(field.name, None, f"{field.metadata['help']} Default: the checkpoint's.")
        flags.declare_key_flag(field.name)


def given_settings(section: type) -> dict[str, Any]:
    """The fields of a section that were given as flags."""
    given = {}
    for field in dataclasses.fields(section):
        value = flags.FLAGS[field.name].value
        if isinstance(value, list):
            try:
                value = tuple(float(item) for item in value)
            except ValueError as error:
                raise ConfigError(f"--{field.name}={','.join(value)} must be numbers, as in 0.1,0.8") from error
        if value is not None:
            given[field.name] = value
    return given


def whole_numbers(flag: flags.FlagHolder) -> list[int] | None:
    """The value of a list flag as integers; None where it is not given."""
    if not flag.value:
        return None
    if not all(re.fullmatch("-?[0-9]{1,18}", item.strip()) for item in flag.value):
        raise ConfigError(f"--{flag.name}={','.join(flag.value)[:80]} must be whole numbers, as in 207,360")
    return [int(item) for item in flag.value]


def define_process_flags() -> None:
    """Defines the flags that start several processes as one run, see `start_distributed`."""
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "HOST:PORT where process 0 listens. Needed only where no TPU pod, SLURM or Open MPI says it.",
    )
    flags.DEFINE_integer("num_processes", None, "How many processes this run has; with --coordinator_address.")
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0; with --coordinator_address.")
    flags.DEFINE_integer(
        "initialization_timeout", 300, "Seconds to wait until all processes have arrived.", lower_bound=1
    )
    for name in ("coordinator_address", "num_processes", "process_id", "initialization_timeout"):
        flags.declare_key_flag(name)


def define_compile_only_flag(required: dict[str, str]) -> None:
    """Defines --compile_only=TOPOLOGY; the flags `required` (with what to say of them) are so without it only."""
    flags.DEFINE_string(
        "compile_only",
        None,
        "TPU slice, such as v5e:4x4 or v5p:4x4x4: compile for it with no TPU present, print what it needs as a table "
        "and, on the last line, as JSON, and end with 1 if it does not fit. Needs libtpu.",
    )
    flags.declare_key_flag("compile_only")
    for name, message in required.items():
        flags.register_multi_flags_validator(
            [name, "compile_only"], lambda values, name=name: any(values.values()), f"--{name} is missing: {message}"
        )


def finish_compile_only(table: str, as_json: str, fits: bool) -> None:
    """Prints both and leaves, with 1 if the program does not fit."""
    print(f"{table}\n{as_json}")
    sys.exit(0 if fits else 1)


def start_distributed(stop_together: bool = True) -> None:
    """Joins this process to its run, as the flags or the environment say. Before anything touches a device.

    stop_together: as for `start_processes`.
    """
    values = flags.FLAGS
    joining = values.coordinator_address, values.num_processes, values.process_id
    start_processes(*joining, values.initialization_timeout, stop_together)


def _parse(argv: list[str]) -> list[str]:
    try:
        left_over = flags.FLAGS(argv)
    except flags.Error as error:
        # What the parser of a flag raises arrives with the flag's value in front.
        inner = error.__context__
        raise ConfigError(str(inner) if isinstance(inner, ConfigError) else one_line(error)[:300]) from error
    except (AttributeError, KeyError) as error:  # ml_collections, for --config.section.field that does not exist
        raise ConfigError(explain_key(error, argv)) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--config: {one_line(error)}") from error
    if len(left_over) > 1:
        raise ConfigError(f"argument {left_over[1]!r} is not understood: flags are written --name=value, see --help")
    return left_over
