"""What numbers of a config may be at most: finite, counted in 32 bits, and of a size that some memory holds."""

import dataclasses
from typing import TYPE_CHECKING, Any

from ledit_jax.errors import ConfigError

if TYPE_CHECKING:
    from ledit_jax.config.experiment import Config


def check_finite(config: "Config") -> None:
    """Numbers that are no settings: NaN, infinity, and what overflows as soon as it is multiplied in float32."""
    for section in dataclasses.fields(config):
        for name, value in vars(getattr(config, section.name)).items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not abs(number) <= 1e9:
                    raise ConfigError(f"{section.name}.{name}={value} is not a finite number of at most 1e9")
    if config.train.learning_rate > 10:
        raise ConfigError(
            f"train.learning_rate={config.train.learning_rate} is far too high: 1e-4 is usual, use at most 10"
        )


def check_sizes(config: "Config") -> None:
    """What is counted in 32 bits, and what nobody's memory holds."""
    for section in dataclasses.fields(config):
        for name, value in vars(getattr(config, section.name)).items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int) and abs(number) >= 2**31 and name != "seed":
                    raise ConfigError(f"{section.name}.{name}={value} is too large: use less than 2^31")
    model = config.model
    _at_most("model", model, timestep_frequency_shift=1, norm_eps=1)
    _at_most("diffusion", config.diffusion, num_timesteps=10**6, beta_start=0.999, beta_end=0.999)
    if int(model.width * model.mlp_ratio) < 2:
        raise ConfigError(f"model.mlp_ratio={model.mlp_ratio} leaves model.width={model.width} no hidden layer: use 4")
    if model.depth > 10_000:
        raise ConfigError(f"model.depth={model.depth} blocks take hours to compile: use 10000 or less")
    if config.least_parameters > 2**44:
        raise ConfigError(
            f"model.depth={model.depth}, model.width={model.width}, model.mlp_ratio={model.mlp_ratio:g} and "
            f"model.num_classes={model.num_classes} make {4 * config.least_parameters / 2**40:,.0f} TiB of weights or "
            "more: use a smaller model"
        )


def _at_most(section: str, settings: Any, **most: int | float) -> None:
    for name, bound in most.items():
        if getattr(settings, name) > bound:
            raise ConfigError(f"{section}.{name}={getattr(settings, name)} is too large: use at most {bound:g}")
