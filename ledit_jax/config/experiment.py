"""A whole experiment: its sections together, and what follows from them."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ledit_jax.config.checks import check_image_size, validate
from ledit_jax.config.parse import from_mapping
from ledit_jax.config.sections import (
    AutoencoderConfig,
    DataConfig,
    DiffusionConfig,
    FlowConfig,
    MeshConfig,
    ModelConfig,
    SampleConfig,
    TextConfig,
    TrainConfig,
)


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    data: DataConfig = field(default_factory=DataConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
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
        """Less than the network has: the matrices of its attention and MLPs, of both streams of an mmdit, and its
        classes."""
        model = self.model
        attention, mlp = 4 * model.width**2, 2 * model.width * self._least_hidden
        if model.network == "mmdit":  # whose last block projects one stream only
            return (2 * model.depth - 1) * (attention + mlp)
        return model.depth * (attention + mlp) + model.num_classes * model.width

    @property
    def _least_hidden(self) -> int:
        """Width of an MLP's hidden layer; SwiGLU has two of two thirds, and three matrices in the place of two."""
        return int(self.model.width * self.model.mlp_ratio) * 2 // 3 * 3 // 2

    def least_activations(self, images: int, height: int | None = None, width: int | None = None) -> int:
        """Bytes that the forward pass of a block holds at once, at least: its input, and the MLP's hidden layer."""
        itemsize = 2 if self.model.dtype == "bfloat16" else 4
        return itemsize * images * self.num_tokens(height, width) * (self.model.width + self._least_hidden)

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

    def to_config_dict(self) -> Any:
        """The same as an ml_collections.ConfigDict, for flags to override; returned by `configs/*.py`."""
        from ml_collections import ConfigDict  # here: only scripts need it

        return ConfigDict(self.to_dict())
