"""Fixtures of several files: loaders that a test opens, and the images and the autoencoder that encoding reads."""

import numpy as np
import pytest
from data.encoding_files import BAD, open_encoder, write_vae
from data.loader_files import PIXELS, class_label
from PIL import Image

from ledit_jax.config import DataConfig
from ledit_jax.data import make_loader


@pytest.fixture
def open_loader():
    """make_loader, closing what it opened when the test ends."""
    opened = []
    defaults = {"condition": class_label, "seed": 0, "batch_size": 8}

    def open_one(config, autoencoder=PIXELS, **arguments):
        opened.append(make_loader(config, autoencoder, **(defaults | arguments)))
        return opened[-1]

    yield open_one
    for loader in opened:
        loader.close()


@pytest.fixture(scope="session")
def vae(tmp_path_factory):
    return write_vae(tmp_path_factory.mktemp("vae") / "a", 0)


@pytest.fixture(scope="session")
def encoder(vae):
    return open_encoder(vae)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Forty JPEGs in four classes, of several sizes, one of them cut short."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(40):
        file = root / f"class{i // 10}" / f"{i:02d}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + i % 7, 18 + i % 5, 3), np.uint8)).save(file)
        if i == BAD:
            file.write_bytes(file.read_bytes()[:100])
    return root


@pytest.fixture(scope="session")
def data(images):
    return DataConfig(source="image_folder", path=str(images), image_height=16, image_width=12, max_bad_share=0.05)
