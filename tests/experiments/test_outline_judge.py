"""The judge of outlines: it reads real digits and shapes at every size, and not what is none."""

import numpy as np
import pytest
from PIL import Image

from experiments.judges.outlines import OutlineJudge
from ledit_jax.data.digits import Digits
from ledit_jax.data.shapes import Shapes
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.frechet import frechet_distance, gaussian_statistics

TRAIN_SIZES = [(16, 16), (24, 24), (32, 32), (16, 32), (32, 16)]
UNSEEN_SIZES = [(8, 8), (48, 48), (40, 24)]


def _images(source, limit=1500):
    records = [source[index] for index in range(min(limit, len(source)))]
    return np.stack([r["image"] for r in records]), np.array([r["label"] for r in records])


@pytest.fixture(scope="module")
def digits_judge():
    return OutlineJudge.train([_images(Digits(*size, "train")) for size in TRAIN_SIZES], seed=0)


@pytest.mark.parametrize("size", TRAIN_SIZES + UNSEEN_SIZES)
def test_held_out_digits_are_read_at_every_size(digits_judge, size):
    images, labels = _images(Digits(*size, "test"))
    assert digits_judge.accuracy(images, labels) >= 0.95
    assert digits_judge.accuracy(images, (labels + 1) % 10) < 0.05


def test_noise_is_read_at_random(digits_judge):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (400, 24, 24, 1), np.uint8), np.arange(400) % 10
    assert digits_judge.accuracy(images, labels) < 0.2


def test_shapes_are_read_wherever_they_are():
    judge = OutlineJudge.train([_images(Shapes(16, 16, "train"))], seed=0)
    for size in [(16, 16), (32, 32), (16, 32)]:
        assert judge.accuracy(*_images(Shapes(*size, "test"), limit=200)) >= 0.95


def test_features_are_the_hidden_layer_that_predictions_come_from(digits_judge):
    images, labels = _images(Digits(16, 24, "test"))
    features = digits_judge.features(images)
    assert features.shape == (len(images), 64) and features.min() == 0
    network = digits_judge._network
    scores = features @ network.coefs_[1] + network.intercepts_[1]
    np.testing.assert_array_equal(scores.argmax(axis=1), digits_judge.predict(images))
    assert digits_judge.accuracy(images, labels) == np.mean(digits_judge.predict(images) == labels)


def test_features_tell_place_and_size_not_the_class_alone(digits_judge):
    """Digits drawn in a corner, each still readable, lie far from digits that fill the image."""
    train, test = (_images(Digits(16, 16, split))[0] for split in ("train", "test"))
    corner = np.zeros_like(test)
    corner[:, :10, :10, 0] = [np.asarray(Image.fromarray(i[..., 0]).resize((10, 10))) for i in test]
    moments = [gaussian_statistics(digits_judge.features(images)) for images in (train, test, corner)]
    assert frechet_distance(*moments[2], *moments[0]) > 20 * frechet_distance(*moments[1], *moments[0])


def test_colour_is_read_as_grey(digits_judge):
    images, _ = _images(Digits(16, 16, "test"), limit=50)
    np.testing.assert_array_equal(digits_judge.features(images.repeat(3, axis=-1)), digits_judge.features(images))


def test_shrinking_averages_over_all_pixels(digits_judge):
    """A checkerboard of single pixels is even grey when shrunk; picking pixels would give black or white."""
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    grey = np.full((64, 64), 127.5)
    features = digits_judge.features(np.stack([board, grey, 0 * grey]).astype(np.uint8)[..., None])
    # The centred crop is scaled up from what was shrunk, so ripples of the filter at the border are all that differs.
    assert np.abs(features[0] - features[1]).max() < 0.1 * np.abs(features[0] - features[2]).max()


def test_training_repeats_for_a_seed_and_differs_between_seeds():
    train, images = [_images(Digits(16, 16, "train"), limit=200)], _images(Digits(16, 16, "test"))[0]
    first, again, other = (OutlineJudge.train(train, seed).features(images) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_blank_images_are_finite_without_warnings(digits_judge):
    blank = np.stack([np.zeros((20, 12, 1), np.uint8), np.full((20, 12, 1), 255, np.uint8)])
    assert np.isfinite(digits_judge.features(blank)).all()


def test_images_with_other_channels_are_refused(digits_judge):
    with pytest.raises(ConfigError, match="4 channels"):
        digits_judge.predict(np.zeros((2, 8, 8, 4), np.uint8))
