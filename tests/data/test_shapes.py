"""The drawn shapes: one scene at every size, ten classes that can be told apart."""

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageDraw

from ledit_jax.data.polygons import polygon_coverage
from ledit_jax.data.shapes import CLASS_NAMES, Shapes
from ledit_jax.errors import ConfigError


def coverage(size: tuple[int, int], index: int, split: str = "train") -> np.ndarray:
    return Shapes(*size, split)[index]["image"][..., 0] / 255


@pytest.mark.parametrize("size", [16, 32, 64])
def test_every_shape_is_one_connected_piece(size):
    source = Shapes(size, size, "train")
    seen = np.zeros(10, int)
    for i in range(200):
        record = source[i]
        image = record["image"][..., 0]
        assert scipy.ndimage.label(image > 127)[1] == 1, (i, CLASS_NAMES[record["label"]])
        assert image.max() == 255 and np.mean(image > 127) < 0.5
        seen[record["label"]] += 1
    assert np.all(seen == 20)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (64, 64), (16, 32), (48, 20)])
def test_area_does_not_depend_on_the_size(size):
    for i in range(100):
        fine = coverage((128, 128), i).mean()
        assert abs(coverage(size, i).mean() / fine - 1) < 0.002  # what rounding to bytes leaves


@pytest.mark.parametrize("factors", [(2, 2), (4, 1), (1, 2)])
def test_one_index_is_one_scene_at_every_size(factors):
    rows, cols = factors
    for i in range(20):
        coarse, fine = coverage((16, 16), i), coverage((16 * rows, 16 * cols), i)
        pooled = fine.reshape(16, rows, 16, cols).mean(axis=(1, 3))
        np.testing.assert_allclose(pooled, coarse, atol=1.01 / 255)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_drawing_agrees_with_pillow(name):
    # Pillow has no partial coverage: it draws 16 times finer, and fattens outlines by up to a pixel of its own.
    label, factor = CLASS_NAMES.index(name), 16
    (corners,) = Shapes(1, 1, "train").contours(label)
    canvas = Image.new("L", (24 * factor, 32 * factor))
    ImageDraw.Draw(canvas).polygon([(x * canvas.width - 0.5, y * canvas.height - 0.5) for x, y in corners], fill=255)
    pillow = np.asarray(canvas.reduce(factor)) / 255
    np.testing.assert_allclose(polygon_coverage([corners], 32, 24), pillow, atol=2.5 / factor)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_covered_area_is_the_polygons(name):
    label = CLASS_NAMES.index(name)
    (corners,) = Shapes(1, 1, "train").contours(label)
    (x, y), (x_next, y_next) = corners.T, np.roll(corners, -1, axis=0).T
    shoelace = abs(np.sum(x * y_next - x_next * y)) / 2
    for size in ((7, 5), (16, 40)):
        assert abs(polygon_coverage([corners], *size).mean() - shoelace) < 1e-9


def test_coverage_is_exact_for_a_rectangle():
    # 1.5 to 3.25 pixels across, 0.5 to 2 down, on a canvas of 4 x 5; and the same corners the other way round.
    corners = np.array([(0.3, 0.125), (0.65, 0.125), (0.65, 0.5), (0.3, 0.5)])
    across, down = [0, 0.5, 1, 0.25, 0], [0.5, 1, 0, 0]
    for order in (corners, corners[::-1]):
        np.testing.assert_allclose(polygon_coverage([order], 4, 5), np.outer(down, across), atol=1e-12)


def test_shapes_keep_clear_of_the_border():
    source = Shapes(1, 1, "train")
    corners = np.concatenate([source.contours(i)[0] for i in range(300)])
    assert 0.02 <= corners.min() < 0.03 and 0.97 < corners.max() <= 0.98


def test_scenes_differ_and_repeat():
    images = [coverage((16, 16), i) for i in range(0, 200, 10)]  # all of one class
    assert len({p.tobytes() for p in images}) == 20
    assert images[3].tobytes() == coverage((16, 16), 30).tobytes()
    assert coverage((16, 16), 0, "test").tobytes() != images[0].tobytes()


def test_lengths_channels_and_bounds():
    assert len(Shapes(8, 8, "train", length=7)) == 7
    image = Shapes(16, 24, "train", channels=3)[5]["image"]
    assert image.shape == (16, 24, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    with pytest.raises(IndexError):
        Shapes(8, 8, "test")[2_000]
    with pytest.raises(ConfigError, match=r"data.split='all'"):
        Shapes(8, 8, "all")
