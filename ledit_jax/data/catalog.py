"""From a configuration to the source of training data it names."""

from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data.captioned import open_captioned_folder, open_coco
from ledit_jax.data.digits import Digits
from ledit_jax.data.glyphs import Glyphs
from ledit_jax.data.image_folder import ImageFolder
from ledit_jax.data.latents import Latents
from ledit_jax.data.scenes import Scenes
from ledit_jax.data.shapes import Shapes
from ledit_jax.data.source import Source
from ledit_jax.data.tfds import TFDS
from ledit_jax.errors import ConfigError
from ledit_jax.files import is_bucket, local_copy
from ledit_jax.files.refusals import unmounted

_WHOLE_IMAGES = ("image_folder", "coco", "captioned_folder", "tfds")
"""Sources whose images are larger than what is cropped from them."""


def make_source(config: DataConfig, autoencoder: AutoencoderConfig) -> Source:
    """Opens the source `config.source`: of latents where there is an autoencoder, else of images.

    `config.split` chooses between the parts of digits, glyphs, shapes, scenes and tfds; a folder of images or latents
    is one part, and one in a bucket is copied to this machine first. Raises ConfigError for settings that cannot work,
    and DataError for data that is missing or damaged.
    """
    height, width, channels = config.image_height, config.image_width, config.image_channels
    if channels not in (1, 3):
        raise ConfigError(f"data.image_channels={channels} is not possible: use 1 for grey or 3 for colour")
    if autoencoder.kind != "none" and config.source != "latents":
        raise ConfigError(
            f"data.source={config.source} holds images, and autoencoder.kind={autoencoder.kind} trains on latents: "
            "encode them first (encode_latents.py), or set autoencoder.kind to none"
        )
    path, annotations = config.path, local_copy(config.annotations)
    if config.source != "tfds":
        if not is_bucket(path) and (fault := unmounted(path)):
            raise ConfigError(f"data.path: {fault}")
        path = local_copy(path)
    if config.annotations and config.source != "coco":
        raise ConfigError(
            f"data.annotations={config.annotations!r} has no effect with data.source={config.source}: it is for coco"
        )
    is_whole = config.min_crop_share < 1
    if is_whole and config.source not in _WHOLE_IMAGES:
        raise ConfigError(
            f"data.min_crop_share={config.min_crop_share:g} has no effect with data.source={config.source}: it is for "
            f"{', '.join(_WHOLE_IMAGES)}"
        )
    size = None if is_whole else (height, width)
    if config.source == "digits":
        return Digits(height, width, config.split, channels)
    if config.source == "glyphs":
        return Glyphs(height, width, config.split, channels)
    if config.source == "shapes":
        return Shapes(height, width, config.split, channels)
    if config.source == "scenes":
        if channels != 3:
            raise ConfigError(
                f"data.image_channels={channels} does not fit data.source=scenes, which has colours: use 3"
            )
        return Scenes(height, width, config.split)
    if config.source == "image_folder":
        return ImageFolder(path, channels, (height, width), is_whole)
    if config.source == "coco":
        return open_coco(path, annotations, channels, size)
    if config.source == "captioned_folder":
        return open_captioned_folder(path, channels, size)
    if config.source == "tfds":
        return TFDS(config.name, config.split, path, channels)
    return Latents(path, height, width, autoencoder)
