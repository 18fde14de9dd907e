"""Nested mappings to nested dataclasses, every value checked against its field's type."""

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from ledit_jax.errors import ConfigError, nearest

_LARGEST = 2**63


def from_mapping(cls: type, values: Any, prefix: str = "") -> Any:
    """An instance of the dataclass `cls` from nested mappings; missing fields take their defaults.

    Raises ConfigError for an unknown key and for a value of the wrong type; `prefix` leads the names in messages.
    """
    hints = typing.get_type_hints(cls)
    if not isinstance(values, Mapping):
        what = prefix.removesuffix(".") or "config"
        raise ConfigError(f"{what}={_shown(values)} is a {type(values).__name__}, and a section of settings is needed")
    for key in values:
        if key not in hints:
            raise ConfigError(f"config key {prefix}{key} is unknown: {nearest(str(key), hints)}")
    return cls(**{key: _convert(hints[key], value, prefix + key) for key, value in values.items()})


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Checks `value` against a field's type; ints pass for floats and lists for tuples, as JSON needs."""
    if dataclasses.is_dataclass(hint):
        return from_mapping(hint, value, prefix=f"{name}.")
    if get_origin(hint) is Literal:
        if isinstance(value, bool) and {"on", "off"} <= set(get_args(hint)):  # what earlier versions wrote
            value = "on" if value else "off"
        if not isinstance(value, str) or value not in get_args(hint):
            raise ConfigError(f"{name}={_shown(value)} is unknown: {nearest(str(value), map(str, get_args(hint)))}")
        return value
    if get_origin(hint) in (tuple, Sequence):
        args = get_args(hint)
        items = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if get_origin(hint) is tuple and args[-1] is not Ellipsis and len(items) != len(args):
            raise ConfigError(f"{name}={_shown(value)} needs {len(args)} values")
        return tuple(_convert(args[0], item, name) for item in items)
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name}={_shown(value)} is a {type(value).__name__}, and a {hint.__name__} is needed")
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise ConfigError(f"{name}={_shown(value)} is too large: whole numbers are less than 2^63")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}={value} is no finite number")
    return float(value) if hint is float else value


def _shown(value: Any) -> str:
    """For messages; what is long is cut, also a number that Python would not write."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= 80 else f"{text[:77]}..."
