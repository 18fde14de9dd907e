"""From a configuration to the source of training data it names."""

from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data.digits import Digits
from ledit_jax.data.image_folder import ImageFolder
from ledit_jax.data.latents import Latents
from ledit_jax.data.shapes import Shapes
from ledit_jax.data.source import Source
from ledit_jax.data.tfds import TFDS
from ledit_jax.errors import ConfigError


def make_source(config: DataConfig, autoencoder: AutoencoderConfig) -> Source:
    """Opens the source `config.source`; what it finds wrong, it raises as ConfigError.

    `config.split` chooses between the parts of digits, shapes and tfds; a folder of images or latents is one part.
    """
    height, width, channels = config.image_height, config.image_width, config.image_channels
    if channels not in (1, 3):
        raise ConfigError(f"data.image_channels={channels} is not possible: use 1 for grey or 3 for colour")
    if config.source == "digits":
        return Digits(height, width, config.split, channels)
    if config.source == "shapes":
        return Shapes(height, width, config.split, channels)
    if config.source == "image_folder":
        return ImageFolder(config.path, channels, (height, width))
    if config.source == "tfds":
        return TFDS(config.name, config.split, config.path, channels)
    return Latents(config.path, height, width, autoencoder)
