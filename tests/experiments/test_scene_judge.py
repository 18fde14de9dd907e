"""The judge of scenes: right about real scenes at every size, and not taken in by what is none."""

import functools

import numpy as np
import pytest
import scipy.ndimage

from experiments.judges.scenes import Verdict, judge, read, shares
from ledit_jax.data.scene_captions import Request
from ledit_jax.data.scenes import Scenes

COUNT = 40


@functools.cache
def scenes(height, width):
    source = Scenes(height, width, "test")
    return [source[index]["image"] for index in range(COUNT)], [source.request(index) for index in range(COUNT)]


@pytest.mark.parametrize("size", [(24, 24), (36, 36), (48, 48), (72, 72), (24, 48), (48, 24)])
def test_real_scenes_are_right_and_other_captions_wrong(size):
    images, requests = scenes(*size)
    assert min(shares(images, requests).values()) >= 0.99
    wrong = shares(images, requests[1:] + requests[:1])
    assert max(wrong["right"], wrong["place"]) < 0.3 and wrong["right"] < 0.05


def _blurred(image):
    return scipy.ndimage.gaussian_filter(image.astype(float), (1.8, 1.8, 0)).round().astype(np.uint8)


def _doubled(image):
    return np.tile(image, (2, 2, 1))


def _doubled_close_by(image):
    return np.maximum(image, np.roll(image, 5, axis=1))


def _small_in_a_corner(image):
    small = np.zeros_like(image)
    small[:18, :18] = image.reshape(18, 2, 18, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    return small


def _streaked(image):
    return np.where(np.arange(36)[:, None, None] % 6 < 2, 0, image).astype(np.uint8)


def _bright_streaks(image):
    return np.where(np.arange(36)[:, None, None] % 9 == 0, 200, image).astype(np.uint8)


def _noisy(image):
    return np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)


def _grainy(image):
    return np.clip(image + np.random.default_rng(0).normal(0, 70, image.shape), 0, 255).astype(np.uint8)


SPOILT = [_blurred, _doubled, _doubled_close_by, _small_in_a_corner, _streaked, _bright_streaks, _noisy, _grainy]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda f: f.__name__.strip("_"))
def test_spoilt_scenes_are_wrong(spoil):
    images, requests = scenes(36, 36)
    assert shares([spoil(image) for image in images], requests)["right"] < 0.05


def test_a_little_of_it_is_forgiven():
    """Samples have some noise and edges that are not exact; that is not what is asked about."""
    images, requests = scenes(36, 36)
    rng = np.random.default_rng(0)
    soft = [scipy.ndimage.gaussian_filter(image.astype(float), (0.5, 0.5, 0)) for image in images]
    noisy = [np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8) for image in soft]
    assert shares(noisy, requests)["right"] > 0.98


RED_DISC_ABOVE_BLUE_SQUARE = Request((("red", "disc"), ("blue", "square")), "above")


def _draw(figures, side=36):
    from ledit_jax.data.scene_captions import COLOURS
    from ledit_jax.data.scenes import figure_coverage

    layers = [
        figure_coverage(shape, np.array(place), 0.25, side, side)[..., None] * COLOURS[colour]
        for colour, shape, place in figures
    ]
    return np.round(np.sum(layers, axis=0)).astype(np.uint8)


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ([("red", "disc", (0.5, 0.2)), ("blue", "square", (0.5, 0.7))], Verdict(True, True, True, True)),
        ([("red", "square", (0.5, 0.2)), ("blue", "disc", (0.5, 0.7))], Verdict(True, False, True, True)),
        ([("red", "disc", (0.5, 0.7)), ("blue", "square", (0.5, 0.2))], Verdict(True, True, False, True)),
        ([("red", "disc", (0.2, 0.5)), ("blue", "square", (0.7, 0.5))], Verdict(True, True, False, True)),
        ([("red", "disc", (0.5, 0.2)), ("green", "square", (0.5, 0.7))], Verdict(False, True, False, True)),
        ([("red", "disc", (0.5, 0.2))], Verdict(False, True, False, False)),
        (
            [("red", "disc", (0.5, 0.2)), ("blue", "square", (0.5, 0.7)), ("red", "disc", (0.2, 0.2))],
            Verdict(True, True, True, False),
        ),
    ],
)
def test_each_part_is_told_by_itself(figures, verdict):
    assert judge(_draw(figures), RED_DISC_ABOVE_BLUE_SQUARE) == verdict
    assert verdict.right == all((verdict.colour, verdict.shape, verdict.place, verdict.count))


def test_places_and_sizes_are_read_to_a_hundredth():
    (figure,) = read(_draw([("yellow", "triangle", (0.4, 0.6))], side=24)).figures
    assert (figure.colour, figure.shape) == ("yellow", "triangle")
    np.testing.assert_allclose((*figure.place, figure.side), (0.4, 0.6, 0.25), atol=0.01)


def test_an_empty_image_has_nothing_right():
    black = np.zeros((24, 24, 3), np.uint8)
    assert judge(black, RED_DISC_ABOVE_BLUE_SQUARE) == Verdict(False, False, False, False)
    assert not judge(black + 255, RED_DISC_ABOVE_BLUE_SQUARE).right
