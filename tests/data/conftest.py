"""Fixtures of several files: loaders that a test opens."""

import pytest
from data.loader_files import PIXELS, class_label

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
