"""The features of layouts: where an image has what, and nothing else of it."""

import numpy as np
import pytest

from experiments.judges.layout import layout_features

RNG = np.random.default_rng(0)


def test_they_are_the_means_of_equal_cells_as_vectors_of_length_1():
    images = RNG.integers(0, 256, (3, 8, 16, 2), np.uint8)
    means = images.reshape(3, 4, 2, 4, 4, 2).mean(axis=(2, 4))
    means -= means.mean(axis=(1, 2), keepdims=True)
    expected = means.reshape(3, -1) / np.linalg.norm(means.reshape(3, -1), axis=1, keepdims=True)
    np.testing.assert_allclose(layout_features(images), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(10, 14), (3, 5), (1, 2)])
def test_a_pixel_across_a_border_counts_for_both_cells(size):
    images = RNG.integers(0, 256, (2, *size, 3), np.uint8)
    finer = images.repeat(4, axis=1).repeat(4, axis=2)  # where every cell has whole pixels
    np.testing.assert_allclose(layout_features(images), layout_features(finer), atol=1e-12)


def test_brightness_tint_and_contrast_leave_no_trace():
    images = RNG.integers(0, 100, (4, 12, 12, 3), np.uint8)
    brighter = 2 * images + np.array([50, 20, 0], np.uint8)
    np.testing.assert_allclose(layout_features(brighter), layout_features(images), atol=1e-12)


def test_images_of_one_colour_are_zero():
    flat = np.full((2, 24, 16, 3), 77, np.uint8)
    assert not layout_features(flat).any()
    assert layout_features(flat[:0]).shape == (0, 48)
