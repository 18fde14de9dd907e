"""Images and latents that say which they are, for the loader to read, and what it made of them."""

import numpy as np
from PIL import Image

from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data.latent_metadata import LatentMetadata
from ledit_jax.data.latent_records import MOMENTS
from ledit_jax.data.latents import LatentWriter, write_metadata

PIXELS = AutoencoderConfig()
SD = AutoencoderConfig(kind="sd")
DIGITS = DataConfig(source="digits", image_height=16, image_width=24, image_channels=1)


def class_label(record, rng):
    return np.int32(record["label"])


def write_images(root, count=40, bad=()):
    """Image i is uniformly grey, of value 4 i, of its own size, and of class i // 10; some are damaged."""
    for i in range(count):
        path = root / str(i // 10) / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (20 + i % 5, 24 + i % 3), 4 * i).save(path)
        if i in bad:
            path.write_bytes(path.read_bytes()[:40])
    return DataConfig(source="image_folder", path=str(root), image_height=16, image_width=8, image_channels=1)


def write_latents(root, count=40, logvar=0.0, shape=(2, 3, 4)):
    """Means are i + 1 for image i and -(i + 1) for its mirror image."""
    with LatentWriter(root, shape) as writer:
        for i in range(count):
            values = (i + 1, logvar, -(i + 1), logvar)
            moments = {name: np.full(shape, value, np.float32) for name, value in zip(MOMENTS, values, strict=True)}
            writer.write(moments | {"label": i % 3})
    write_metadata(root, LatentMetadata("test-vae", 0.18215, 16, 24, 8, 4, "noise", num_classes=3))
    return DataConfig(source="latents", path=str(root), image_height=16, image_width=24)


def indices(loader, batches):
    """Which images of `write_images` the next batches hold."""
    values = np.concatenate([next(loader)["x"][:, 0, 0, 0] for _ in range(batches)])
    return np.round((values + 1) * 127.5 / 4).astype(int)


def assert_same_batch(left, right):
    assert left.keys() == right.keys() == {"x", "condition"}
    np.testing.assert_array_equal(left["x"], right["x"])
    np.testing.assert_array_equal(left["condition"], right["condition"])
