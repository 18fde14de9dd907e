"""The duplication score: real images get a half, tilings get one, and the correlation is NumPy's."""

import functools

import numpy as np
import pytest

from ledit_jax.data.digits import Digits
from ledit_jax.data.shapes import Shapes
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.duplication import duplication_score, self_similarity


@functools.cache
def real(source, height, width, split):
    """(images, labels) of the first 300 of a source."""
    images = {"digits": Digits, "shapes": Shapes}[source](height, width, split)
    records = [images[index] for index in range(300)]
    return np.stack([r["image"] for r in records]), np.array([r["label"] for r in records])


def test_self_similarity_is_the_highest_correlation_of_far_overlaps():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 7, 9, 3), np.uint8)
    expected = []
    for x in images.mean(axis=-1):
        best = -1.0
        for down in range(-6, 7):
            for right in range(-8, 9):
                h, w = 7 - abs(down), 9 - abs(right)
                if (abs(down) < 7 / 3 and abs(right) < 3) or h * w < 21:
                    continue
                a = x[max(0, -down) :, max(0, -right) :][:h, :w]
                b = x[max(0, down) :, max(0, right) :][:h, :w]
                # Noise everywhere: no overlap is empty, and the floor of the denominator plays no part.
                best = max(best, np.corrcoef(a.ravel(), b.ravel())[0, 1])
        expected.append(best)
    assert np.allclose(self_similarity(images), expected, atol=1e-9)


@pytest.mark.parametrize("source", ["digits", "shapes"])
@pytest.mark.parametrize("size", [(24, 24), (16, 32)])
def test_tiled_images_are_told_from_real_ones(source, size):
    train, (held_out, labels) = real(source, *size, "train"), real(source, *size, "test")
    small = real(source, 16, 16, "test")[0][:150]
    tiled = np.tile(small, (1, 2, 2, 1))[:, : size[0], : size[1]]  # what an image of the trained size, repeated, is
    assert 0.4 < duplication_score(held_out[:150], labels[:150], *train) < 0.6
    assert duplication_score(tiled, labels[:150], *train) > 0.97


@pytest.mark.parametrize(("source", "at_least"), [("digits", 0.75), ("shapes", 0.95)])
def test_different_images_of_one_class_side_by_side_count_as_repeated(source, at_least):
    rng = np.random.default_rng(0)
    half, labels = real(source, 16, 16, "test")
    parts = [half[[rng.choice(np.flatnonzero(labels == label)) for label in labels[:150]]] for _ in range(4)]
    images = np.concatenate([np.concatenate(parts[:2], axis=2), np.concatenate(parts[2:], axis=2)], axis=1)
    assert duplication_score(images, labels[:150], *real(source, 32, 32, "train")) > at_least


def test_empty_images_and_noise_repeat_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 1), np.uint8)
    assert (self_similarity(np.full((2, 32, 32, 1), 7, np.uint8)) == 0).all()
    assert duplication_score(noise, np.arange(20) % 10, *real("digits", 32, 32, "train")) < 0.05


def test_bad_input_is_named():
    images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1])
    with pytest.raises(ConfigError, match="class 1 has no real images"):
        duplication_score(images, labels, images, np.array([0, 0]))
    with pytest.raises(ConfigError, match="too small"):
        self_similarity(np.zeros((1, 1, 1, 1), np.uint8))
