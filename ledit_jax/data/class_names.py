"""What the classes of a model are called: of its data, or ImageNet's where there are a thousand."""

import contextlib
from collections.abc import Sequence
from importlib.resources import files

from ledit_jax.config import Config
from ledit_jax.data.image_folder import class_folders
from ledit_jax.data.shapes import CLASS_NAMES
from ledit_jax.errors import DataError

_IMAGENET = 1000


def class_names(config: Config, known: Sequence[str] = ()) -> list[str]:
    """A name for each class of a model; empty where none is known.

    known: names that came with the weights. Without them the data says: digits, shapes, or the folders of
    `image_folder` if they are still there. A model of a thousand classes is taken for one of ImageNet.
    """
    data, count = config.data, config.model.num_classes
    if len(known) == count:
        return list(known)
    if data.source in ("digits", "glyphs"):
        return [str(digit) for digit in range(count)]
    if data.source == "shapes":
        return list(CLASS_NAMES)[:count]
    folders: list[str] = []
    with contextlib.suppress(DataError):  # of a bucket that is out of reach by now
        folders = class_folders(data.path) if data.source == "image_folder" else []
    if len(folders) == count:
        return folders
    return imagenet_names() if count == _IMAGENET else [""] * count


def imagenet_names() -> list[str]:
    """The thousand classes of ImageNet, each by the first of its names, in the order of their labels."""
    text = files("ledit_jax.data").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return text.splitlines()
