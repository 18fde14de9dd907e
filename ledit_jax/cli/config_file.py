"""The --config flag: a Python file, which is run, and overrides of what its `get_config` returns.

What goes wrong in the file is one line with the file and the line number: it is its writer's, and no fault of ours.
"""

import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from absl import flags
from ml_collections import ConfigDict, config_flags

from ledit_jax.config import Config
from ledit_jax.errors import ConfigError, LEDiTError, one_line

T = TypeVar("T")


def define_config_flag(help_text: str) -> None:
    """Defines --config=FILE.py[:ARGUMENT] and --config.section.field=value."""
    config_flags.DEFINE_config_file("config", None, help_text)
    flags.FLAGS["config"].parser = _ConfigFile()


def load_config(build: Callable[[Mapping[str, Any]], T] = Config.from_dict) -> T:
    """The validated Config of the --config flag, with its overrides applied; `build` makes another kind of config."""
    return build(flags.FLAGS.config.to_dict())


class _ConfigFile(flags.ArgumentParser):
    """Runs FILE.py and calls its get_config, with the argument if there is one."""

    def parse(self, argument: str) -> ConfigDict:
        path, *given = argument.split(":", 1)
        try:
            get_config = _run(path).get_config
            if not callable(get_config):
                raise TypeError(f"get_config is a {type(get_config).__name__}, and a function is needed")
            config = get_config(*given)
        except LEDiTError as error:  # what the file asked for, such as a preset, and cannot have
            raise ConfigError(one_line(error)) from error
        except (Exception, SystemExit) as error:
            raise ConfigError(f"--config: {_what_failed(path, error)}") from error
        if not isinstance(config, ConfigDict):
            found = "None" if config is None else f"a {type(config).__name__}"
            raise ConfigError(
                f"--config: {path}: get_config returned {found}, and an ml_collections.ConfigDict is needed: end it "
                "with `return config.to_config_dict()`"
            )
        config.lock()
        return config

    def flag_type(self) -> str:
        return "config file"


def _run(path: str) -> ModuleType:
    name = "config_config"  # as ml_collections calls it
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, SourceFileLoader(name, path)))
    sys.modules[name] = module
    module.__spec__.loader.exec_module(module)
    return module


def _what_failed(path: str, error: BaseException) -> str:
    """The file and the line of it that was run last, and why it failed."""
    if isinstance(error, OSError) and error.filename == path:
        return f"{path} does not exist" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
    kind = type(error).__name__
    if isinstance(error, SyntaxError):
        where = f"{error.filename or path}{f' line {error.lineno}' if error.lineno else ''}"
        return f"{where}: {kind}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if _is_same(frame.filename, path)]
    if isinstance(error, AttributeError) and not lines and "get_config" in str(error):
        return f"{path} defines no get_config: it is what returns the config"
    return f"{path}{f' line {lines[-1]}' if lines else ''}: {kind}: {one_line(error)[:300]}"


def _is_same(name: str, path: str) -> bool:
    return Path(name).absolute() == Path(path).absolute()


def explain_key(error: Exception, argv: list[str]) -> str:
    """What ml_collections says of --config.section.field that does not exist, with the section."""
    if below := re.search(r"Attempting to lookup: (\S+)", str(error)):
        return f"config key {below[1]} is unknown: {below[1].rpartition('.')[0]} is a value, and no section"
    close = re.search(r'Did you mean "(.*?)" instead of "(.*?)"', str(error))
    name = close[2] if close else str(error).strip("\"'")
    given = re.search(rf"--?(?:no)?config\.((?:\w+\.)*){re.escape(name)}\b", " ".join(argv))
    section = given[1] if given else ""
    advice = f"did you mean {section}{close[1]}?" if close else "the keys are in ledit_jax/config/sections.py"
    return f"config key {section}{name} is unknown: {advice}"
