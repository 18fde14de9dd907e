"""A whole experiment: its sections together, what follows from them, and the checks between them."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_collections

from ledit_jax.config.parse import from_mapping
from ledit_jax.config.sections import (
    AutoencoderConfig,
    DataConfig,
    DiffusionConfig,
    MeshConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
)
from ledit_jax.errors import ConfigError


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    @property
    def in_channels(self) -> int:
        """Channels of what the network denoises."""
        return self.data.image_channels if self.autoencoder.kind == "none" else self.autoencoder.latent_channels

    @property
    def downsample(self) -> int:
        """Pixels per side of one latent cell; 1 for pixel models."""
        return 1 if self.autoencoder.kind == "none" else self.autoencoder.downsample

    @property
    def least_parameters(self) -> int:
        """Less than the network has: the matrices of its attention, and its classes."""
        return 4 * self.model.depth * self.model.width**2 + self.model.num_classes * self.model.width

    @property
    def granularity(self) -> int:
        """Heights and widths in pixels are multiples of this: patch size times the autoencoder's downsampling."""
        return self.model.patch_size * self.downsample

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """(H, W, C) that the network sees for an image of this size in pixels (default: the training size)."""
        height = self.data.image_height if height is None else height
        width = self.data.image_width if width is None else width
        check_image_size(height, width, self.granularity)
        return height // self.downsample, width // self.downsample, self.in_channels

    def token_grid(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """(rows, columns) of tokens of an image of this size in pixels (default: the training size)."""
        h, w, _ = self.latent_shape(height, width)
        return h // self.model.patch_size, w // self.model.patch_size

    def num_tokens(self, height: int | None = None, width: int | None = None) -> int:
        """Tokens of an image of this size in pixels (default: the training size)."""
        return math.prod(self.token_grid(height, width))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Builds and validates a Config from nested mappings, such as a checkpoint's JSON.

        Missing fields take their defaults. Raises ConfigError for an unknown key, a wrong type or values that
        do not fit together.
        """
        config = from_mapping(cls, values)
        validate(config)
        return config

    def replaced(self, section: str, **fields: Any) -> "Config":
        """The config with fields of one section replaced, checked anew."""
        values = self.to_dict()
        return Config.from_dict(values | {section: values[section] | fields})

    def for_any_device(self) -> "Config":
        """The config with the attention backend left open: a model trained with a TPU's kernel samples anywhere."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, attention="auto"))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, ready for JSON."""
        return dataclasses.asdict(self)

    def to_config_dict(self) -> ml_collections.ConfigDict:
        """The same as an ml_collections.ConfigDict, for flags to override; returned by `configs/*.py`."""
        return ml_collections.ConfigDict(self.to_dict())


def check_image_size(height: int, width: int, granularity: int) -> None:
    """Raises ConfigError unless both sides are positive multiples of `granularity` (pixels)."""
    for name, value in (("height", height), ("width", width)):
        if value <= 0 or value % granularity:
            below = max(granularity, value // granularity * granularity)
            raise ConfigError(
                f"{name}={value} is not a positive multiple of {granularity} (patch size x downsampling): "
                f"use {below} or {below + granularity}"
            )


def validate(config: Config) -> None:
    """Raises ConfigError for the first setting that cannot work. Nothing here needs a device or a file."""
    _check_finite(config)
    _check_signs(config)
    _check_sizes(config)
    _check_model(config)
    check_image_size(config.data.image_height, config.data.image_width, config.granularity)
    _check_train(config)
    _check_sample(config)


def _check_finite(config: Config) -> None:
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


def _check_signs(config: Config) -> None:
    _positive(config, "model", "depth", "width", "num_heads", "patch_size", "num_classes", "mlp_ratio", "norm_eps")
    _positive(config, "diffusion", "num_timesteps", "beta_start", "beta_end")
    _positive(config, "data", "image_height", "image_width", "image_channels")
    _positive(config, "train", "num_steps", "batch_size", "accumulation_steps", "learning_rate")
    _positive(config, "train", "log_every", "checkpoint_every", "keep_last")
    _positive(config, "sample", "num_steps")
    _not_negative(config, "data", "num_workers")
    _not_negative(config, "train", "weight_decay", "warmup_steps", "decay_steps", "grad_clip", "max_nonfinite_steps")
    _not_negative(config, "train", "seed", "keep_every", "sample_every")
    _shares(config, "data", "max_bad_share")
    _shares(config, "train", "ema_decay", "label_dropout", "dilation_probability")


def _check_sizes(config: Config) -> None:
    """What is counted in 32 bits, and what nobody's memory holds."""
    for section in dataclasses.fields(config):
        for name, value in vars(getattr(config, section.name)).items():
            if isinstance(value, int) and abs(value) >= 2**31 and name != "seed":
                raise ConfigError(f"{section.name}.{name}={value} is too large: use less than 2^31")
    model = config.model
    if model.depth > 10_000:
        raise ConfigError(f"model.depth={model.depth} blocks take hours to compile: use 10000 or less")
    if config.least_parameters > 2**44:
        raise ConfigError(
            f"model.depth={model.depth}, model.width={model.width} and model.num_classes={model.num_classes} make "
            f"{4 * config.least_parameters / 2**40:,.0f} TiB of weights or more: use a smaller model"
        )


def _check_model(config: Config) -> None:
    model = config.model
    if model.width % model.num_heads:
        raise ConfigError(
            f"model.num_heads={model.num_heads} does not divide model.width={model.width}: "
            f"use one of {_divisors(model.width)}"
        )
    if model.depth % 2 and model.block_order not in ("sa", "ca", "single_ca"):
        raise ConfigError(
            f"model.depth={model.depth} is odd, and model.block_order={model.block_order} needs pairs of blocks: "
            f"use depth {model.depth - 1 or 2} or {model.depth + 1}, or block_order sa, ca or single_ca"
        )
    if not 0 <= model.causal_from_timestep <= config.diffusion.num_timesteps:
        raise ConfigError(
            f"model.causal_from_timestep={model.causal_from_timestep} is not between 0 and "
            f"diffusion.num_timesteps={config.diffusion.num_timesteps}"
        )


def _check_train(config: Config) -> None:
    train = config.train
    if train.batch_size % train.accumulation_steps:
        raise ConfigError(
            f"train.accumulation_steps={train.accumulation_steps} does not divide train.batch_size={train.batch_size}"
        )
    if train.dilation_probability and config.model.conv == "none":
        raise ConfigError(
            f"train.dilation_probability={train.dilation_probability} has no convolution to dilate "
            "(model.conv=none): set it to 0, or model.conv to dense"
        )
    if train.dilation_probability and not (train.dilation_rates and min(train.dilation_rates) > 0):
        raise ConfigError(f"train.dilation_rates={train.dilation_rates} must be one or more positive integers")


def _check_sample(config: Config) -> None:
    sample = config.sample
    if sample.num_steps > config.diffusion.num_timesteps:
        raise ConfigError(
            f"sample.num_steps={sample.num_steps} is more than diffusion.num_timesteps="
            f"{config.diffusion.num_timesteps}: use at most {config.diffusion.num_timesteps}"
        )
    low, high = sample.cfg_interval
    if not 0 <= low <= high <= 1:
        raise ConfigError(f"sample.cfg_interval={sample.cfg_interval} must be two shares of the timesteps, low to high")


def _positive(config: Config, section: str, *names: str) -> None:
    _check_each(config, section, names, lambda value: value > 0, "must be greater than 0")


def _not_negative(config: Config, section: str, *names: str) -> None:
    _check_each(config, section, names, lambda value: value >= 0, "must not be negative")


def _shares(config: Config, section: str, *names: str) -> None:
    _check_each(config, section, names, lambda value: 0 <= value <= 1, "is not between 0 and 1")


def _check_each(config: Config, section: str, names: Iterable[str], holds: Callable[..., bool], claim: str) -> None:
    for name in names:
        value = getattr(getattr(config, section), name)
        if not holds(value):
            raise ConfigError(f"{section}.{name}={value} {claim}")


def _divisors(n: int) -> str:
    return ", ".join(str(d) for d in range(1, n + 1) if n % d == 0 and n // d >= 8) or "1"
