"""The measure tells a model that draws real images from one that draws noise, the wrong class or few classes."""

import functools

import numpy as np
import pytest
import scipy.ndimage

from experiments.study import images
from experiments.study.images import Samples, count_objects, real_images
from experiments.study.judges import drawn_judge
from experiments.study.reference import Reference
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.frechet import frechet_distance, gaussian_statistics

SIZES = [(16, 16), (32, 32), (16, 32)]
LABELS = np.tile(np.arange(10), 12)


def draw_real(source, size, labels):
    """A perfect model: every image asked for is a real held-out one of that class."""
    real, rng = real_images(source, *size, "test"), np.random.default_rng(0)
    return Samples(real.images[[rng.choice(np.flatnonzero(real.labels == label)) for label in labels]], labels)


@pytest.fixture(scope="module")
def digits():
    return Reference(functools.partial(real_images, "digits"), lambda: drawn_judge("digits"), counts_objects=False)


@pytest.fixture(scope="module")
def good(digits):
    """Figures of a perfect model, by size."""
    return {size: digits.measure(draw_real("digits", size, LABELS)) for size in SIZES}


def test_real_images_score_high(digits, good):
    for size, figures in good.items():
        floor = digits.measure_real(size, len(LABELS))
        assert figures.num_samples == floor.num_samples == 120 and figures.objects is None
        assert min(figures.accuracy, floor.accuracy) >= 0.95
        assert 0 < figures.frechet < 4 * floor.frechet
        assert min(figures.precision, floor.precision) > 0.6 and min(figures.recall, floor.recall) > 0.3
        assert 0.4 < figures.duplication < 0.6


def test_distances_are_to_training_images_and_the_floor_is_of_as_many_held_out_ones(digits, good):
    rng = np.random.default_rng(0)
    for size, figures in good.items():
        read = drawn_judge("digits").read
        train, test = (read(real_images("digits", *size, split).images) for split in ("train", "test"))
        drawn = read(draw_real("digits", size, LABELS).images)
        assert figures.frechet == pytest.approx(frechet_distance(*drawn.statistics, *train.statistics))
        patches = frechet_distance(*drawn.patch_statistics, *train.patch_statistics)
        assert figures.patches == pytest.approx(patches)
        subsets = [test.features[rng.permutation(len(test.features))[:120]] for _ in range(5)]
        floors = [frechet_distance(*gaussian_statistics(subset), *train.statistics) for subset in subsets]
        assert 0.6 * min(floors) < digits.measure_real(size, 120).frechet < 1.5 * max(floors)


def test_held_out_images_are_spread_over_the_classes(digits):
    assert np.bincount(digits.held_out((16, 16), 20).labels).tolist() == [2] * 10
    assert len(digits.held_out((16, 16), 9_999).labels) == 355  # all of them, each once


def test_noise_scores_low(digits, good):
    rng = np.random.default_rng(0)
    for size in SIZES:
        figures = digits.measure(Samples(rng.integers(0, 256, (120, *size, 1), np.uint8), LABELS))
        assert figures.accuracy < 0.25
        assert figures.frechet > 20 * good[size].frechet
        assert figures.precision == figures.recall == 0.0 and figures.duplication < 0.05


def test_wrong_classes_are_not_read_right_though_they_look_real(digits, good):
    for size in SIZES:
        shifted = draw_real("digits", size, (LABELS + 1) % 10)
        figures = digits.measure(Samples(shifted.images, LABELS))
        assert figures.accuracy < 0.1
        assert figures.frechet < 3 * good[size].frechet


def test_half_of_the_classes_missing_shows_in_the_distance(digits, good):
    for size in SIZES:
        half = draw_real("digits", size, LABELS // 5 * 5)
        assert digits.measure(half).frechet > 10 * good[size].frechet


def test_three_images_have_no_precision(digits):
    few = draw_real("digits", (16, 16), np.arange(3))
    assert digits.measure(few).precision is None and digits.measure(few).recall is None


@pytest.mark.parametrize("source", ["glyphs", "shapes"])
def test_objects_are_counted(source, monkeypatch):
    monkeypatch.setattr(images, "MAX_REAL", 100)
    real_images.cache_clear()
    reference = Reference(functools.partial(real_images, source), lambda: drawn_judge("digits"), counts_objects=True)
    one = draw_real(source, (32, 32), LABELS[:30])
    two = Samples(np.concatenate([one.images, one.images], axis=2), one.labels)
    counts = [reference.measure(samples).objects for samples in (one, two)]
    real_images.cache_clear()
    assert counts == [1.0, 2.0]


def test_objects_are_bright_regions_joined_over_corners():
    image = np.zeros((7, 7, 1), np.uint8)
    assert count_objects(image[None]) == 0
    image[1, 1], image[2, 2], image[3, 3], image[5:, 5:] = 255, 128, 255, 200
    assert scipy.ndimage.label(image[..., 0] > 127)[1] == 4  # over sides alone
    assert count_objects(image[None]) == 2
    image[2, 2] = 127  # half of full intensity is 127.5
    assert count_objects(np.stack([image, 0 * image]).repeat(3, axis=-1)) == 1.5


def test_source_without_any_size_is_refused():
    with pytest.raises(ConfigError, match=r"data\.source=tfds"):
        real_images("tfds", 16, 16, "test")
