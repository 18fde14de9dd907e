"""The shift of a flow's times, as settings write it."""

import math

from ledit_jax.errors import ConfigError


def resolve_shift(rule: str, num_tokens: int | None, base_tokens: int | None, name: str = "time_shift") -> float:
    """The factor that "none", "auto" or a number written out stands for.

    "auto" is sqrt(num_tokens / base_tokens), the rule of SD3 (arXiv 2403.03206, section 5.3.2) for another number of
    tokens; 1 where either is not known. Raises ConfigError, with the setting's name, for what is neither, and for a
    number that is not greater than 0.
    """
    if rule == "none":
        return 1.0
    if rule == "auto":
        return math.sqrt(num_tokens / base_tokens) if num_tokens and base_tokens else 1.0
    try:
        shift = float(rule)
    except ValueError:
        shift = math.nan
    if not 0 < shift <= 1e6:
        raise ConfigError(f"{name}={rule!r} must be none, auto or a number greater than 0")
    return shift
