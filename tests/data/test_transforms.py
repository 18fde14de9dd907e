"""Crop, mirror and value range."""

import numpy as np
import pytest
from PIL import Image

from ledit_jax.data.transforms import center_crop, random_crop, random_flip, to_array, to_float, to_image


def make_image(height: int, width: int) -> Image.Image:
    """Smooth colours with noise on top: both filters and every offset leave a trace."""
    rng = np.random.default_rng(height * 1000 + width)
    ramp = np.linspace(0, 200, height)[:, None, None] * np.linspace(0.2, 1, width)[None, :, None]
    return Image.fromarray((ramp + rng.uniform(0, 55, (height, width, 3))).astype(np.uint8))


def adm_crop(image: Image.Image, side: int) -> np.ndarray:
    """ADM's recipe on arrays: box halvings, bicubic to the short side, rows and columns cut out by floor."""
    short = min(image.size)
    while short >= 2 * side:
        image = image.resize([length // 2 for length in image.size], resample=Image.BOX)
        short = min(image.size)
    image = image.resize([round(length * side / short) for length in image.size], resample=Image.BICUBIC)
    array = np.array(image)
    top, left = [(length - side) // 2 for length in array.shape[:2]]
    return array[top : top + side, left : left + side]


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (63, 33), (64, 65), (129, 201), (10, 13)])
def test_square_crop_is_adms_bit_for_bit(size):
    image = make_image(*size)
    np.testing.assert_array_equal(np.asarray(center_crop(image, 16, 16)), adm_crop(image, 16))


@pytest.mark.parametrize("size", [(16, 32), (64, 64), (200, 90), (33, 65), (5, 7)])
@pytest.mark.parametrize("target", [(16, 32), (24, 8)])
def test_crop_has_the_size_asked_for(size, target):
    assert center_crop(make_image(*size), *target).size == target[::-1]


def test_oblong_crop_keeps_the_middle_and_does_not_stretch():
    # A disc in the middle of a tall image: the crop is wide, and the disc still round and central in it.
    y, x = np.mgrid[:120, :80]
    disc = Image.fromarray(np.uint8(255 * (np.hypot(y - 59.5, x - 39.5) < 12)))
    rows, cols = np.nonzero(np.asarray(center_crop(disc, 20, 40)) > 127)
    assert np.ptp(rows) == np.ptp(cols) == 11  # 24 pixels across, halved
    assert (rows.min() + rows.max()) / 2 == 9.5 and (cols.min() + cols.max()) / 2 == 19.5


def test_crop_of_the_right_size_changes_nothing():
    image = make_image(16, 32)
    np.testing.assert_array_equal(np.asarray(center_crop(image, 16, 32)), np.asarray(image))


def test_random_crops_show_all_of_the_image_at_every_scale_that_is_allowed():
    """Of a ramp, a crop's span in grey tells its share of the side, and its mean the place."""
    ramp = Image.fromarray(np.broadcast_to(np.linspace(0, 255, 64).round().astype(np.uint8), (64, 64)))
    rng = np.random.default_rng(0)
    rows = np.array([np.asarray(random_crop(ramp, 16, 16, 0.5, rng), float).mean(axis=0) for _ in range(400)])
    shares, centres = np.ptp(rows, axis=1) / np.ptp(np.asarray(center_crop(ramp, 16, 16))[0]), rows.mean(axis=1) / 255
    assert 0.47 < shares.min() < 0.53 and 0.95 < shares.max() < 1.03
    assert abs(np.mean(1 / shares) - 1.5) < 0.06  # drawn evenly from 1 to 2
    close = centres[shares < 0.6]
    assert close.min() < 0.32 and close.max() > 0.68 and abs(np.mean(centres) - 0.5) < 0.02


@pytest.mark.parametrize("size", [(40, 64), (17, 40), (10, 13)])
def test_a_random_crop_without_scale_is_a_part_of_adms_image_anywhere(size):
    image, rng = make_image(*size), np.random.default_rng(1)
    whole = image
    while min(whole.size) >= 32:
        whole = whole.resize((whole.width // 2, whole.height // 2), Image.Resampling.BOX)
    scale = 16 / min(whole.size)
    whole = whole.resize((round(whole.width * scale), round(whole.height * scale)), Image.Resampling.BICUBIC)
    parts = np.lib.stride_tricks.sliding_window_view(np.asarray(whole), (16, 16), axis=(0, 1)).reshape(-1, 3, 16, 16)
    found = set()
    for _ in range(60):
        crop = np.moveaxis(np.asarray(random_crop(image, 16, 16, 1.0, rng)), 2, 0)
        (matches,) = np.nonzero((parts == crop).all(axis=(1, 2, 3)))
        found.update(matches.tolist())
        assert len(matches) == 1
    assert len(found) > 0.6 * min(len(parts), 40)


def test_float_range():
    x = to_float(np.array([[[0], [255], [51]]], np.uint8))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.ravel(), [-1, 1, -0.6], atol=1e-7)


def test_floats_can_be_written_in_place():
    image, out = np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.zeros((2, 2, 3), np.float32)
    assert to_float(image, out=out) is out
    np.testing.assert_array_equal(out, to_float(image))


def test_flip_mirrors_about_half():
    image = np.asarray(make_image(8, 12))
    rng = np.random.default_rng(0)
    flipped = 0
    for _ in range(1000):
        out = random_flip(image, rng)
        mirrored = np.array_equal(out, np.fliplr(image))
        assert mirrored or np.array_equal(out, image)
        flipped += mirrored
    assert 440 < flipped < 560  # 3.8 standard deviations


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_and_images_are_inverse(channels):
    array = np.random.default_rng(0).integers(0, 256, (4, 6, channels), np.uint8)
    np.testing.assert_array_equal(to_array(to_image(array), channels), array)


def test_grey_and_colour_convert_to_each_other():
    grey = Image.new("L", (3, 2), 77)
    np.testing.assert_array_equal(to_array(grey, 3), np.full((2, 3, 3), 77))
    # ITU-R 601 luma of pure green is 0.587 * 255.
    np.testing.assert_array_equal(to_array(Image.new("RGB", (3, 2), (0, 255, 0)), 1), np.full((2, 3, 1), 150))
