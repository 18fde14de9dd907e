"""Sizes as they are written, read, and named beside the training size."""

import pytest

from experiments.sizes import parse_size, relative_size, size_name
from ledit_jax.errors import ConfigError


def test_sizes_are_height_x_width():
    assert parse_size("512x384") == (512, 384) and size_name((512, 384)) == "512x384"
    for text in ("512", "x384", "-8x8", "8x8x3"):
        with pytest.raises(ConfigError, match="is no size: write height x width"):
            parse_size(text)


@pytest.mark.parametrize(
    "size, trained, expected",
    [
        ((16, 16), (16, 16), "1x"),
        ((24, 24), (16, 16), "1.5x"),
        ((32, 16), (16, 16), "1:2"),
        ((16, 32), (16, 16), "2:1"),
        ((32, 64), (16, 32), "2x"),
        ((512, 384), (256, 256), "3:4"),
        ((32, 32), (16, 32), "1:1"),
    ],
)
def test_relative_size(size, trained, expected):
    assert relative_size(size, trained) == expected
