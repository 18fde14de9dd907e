"""The printed digits: one scene at every size, drawn from the outlines that matplotlib itself draws."""

import numpy as np
import pytest
import scipy.ndimage
from matplotlib import get_data_path
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data.catalog import make_source
from ledit_jax.data.glyphs import FONTS, Glyphs, embolden, font_outline
from ledit_jax.data.polygons import polygon_coverage
from ledit_jax.errors import ConfigError


def coverage(size: tuple[int, int], index: int, split: str = "train") -> np.ndarray:
    return Glyphs(*size, split)[index]["image"][..., 0] / 255


@pytest.mark.parametrize("factors", [(2, 2), (3, 1), (1, 2)])
def test_one_index_is_one_scene_at_every_size(factors):
    rows, cols = factors
    for i in range(20):
        coarse, fine = coverage((16, 16), i), coverage((16 * rows, 16 * cols), i)
        pooled = fine.reshape(16, rows, 16, cols).mean(axis=(1, 3))
        # Equal but for rounding, and for pixels where an emboldened outline crosses itself.
        assert np.mean(np.abs(pooled - coarse) > 1.01 / 255) < 0.03
        np.testing.assert_allclose(pooled, coarse, atol=0.25)


@pytest.mark.parametrize("font", FONTS)
def test_outlines_are_the_fonts(font):
    """Matplotlib's own test of which points lie in a digit, a grid of 32 x 24 of them, against what we draw."""
    digit = str(FONTS.index(font) % 10)
    prop = FontProperties(fname=f"{get_data_path()}/fonts/ttf/{font}.ttf")
    path = TextPath((0, 0), digit, size=100, prop=prop)
    outline = font_outline(font, digit)
    corners = np.concatenate(outline)
    low, size = corners.min(axis=0), np.ptp(corners, axis=0)
    drawn = polygon_coverage([(c - low) / size for c in outline], 32, 24)
    y, x = (np.mgrid[:32, :24] + 0.5) / [[[32]], [[24]]]
    box = path.get_extents()
    points = np.stack([box.x0 + x.ravel() * box.width, box.y1 - y.ravel() * box.height], axis=1)
    # Every contour by itself: holes take away.
    inside = sum(np.sign(_area(p)) * _contains(p, points) for p in path.to_polygons()).reshape(32, 24) != 0
    assert np.mean((drawn > 0.5) != inside) < 0.03
    assert 0.1 < inside.mean() < 0.9


def _area(polygon):
    return np.sum(polygon[:-1, 0] * polygon[1:, 1] - polygon[1:, 0] * polygon[:-1, 1])


def _contains(polygon, points):
    from matplotlib.path import Path

    return Path(polygon).contains_points(points).astype(int)


def test_strokes_grow_on_both_sides():
    """A square ring: its outer side moves out and its hole shrinks, whichever way round both are drawn."""
    outer = np.array([(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)])
    hole = np.array([(0.4, 0.4), (0.4, 0.6), (0.6, 0.6), (0.6, 0.4)])
    for contours in ([outer, hole], [outer[::-1], hole[::-1]]):
        grown = embolden(contours, 0.05)
        np.testing.assert_allclose([np.ptp(c, axis=0) for c in grown], [(0.7, 0.7), (0.1, 0.1)], atol=1e-12)


def test_a_digit_is_nearly_always_one_piece_with_strokes_of_many_widths():
    images = [coverage((32, 32), i, "test") for i in range(200)]
    assert np.mean([scipy.ndimage.label(i > 0.5, np.ones((3, 3)))[1] == 1 for i in images]) > 0.98
    widths = np.array([2 * scipy.ndimage.distance_transform_edt(i > 0.5).max() for i in images])
    assert np.quantile(widths, 0.95) > 1.6 * np.quantile(widths, 0.05)
    # Sharp at every size: few pixels are neither ink nor ground, and fewer the larger the image.
    grey = [np.mean([np.mean((i > 0.1) & (i < 0.9)) for i in sized]) for sized in (images, _images(64))]
    assert grey[1] < 0.6 * grey[0] < 0.12


def _images(size):
    return [coverage((size, size), i, "test") for i in range(50)]


def test_records_repeat_and_splits_differ():
    train, test = (Glyphs(16, 16, split) for split in ("train", "test"))
    assert (len(train), len(test), train.num_classes) == (20_000, 2_000, 10)
    assert [train[i]["label"] for i in range(12)] == [*range(10), 0, 1]
    seen = {train[i]["image"].tobytes() for i in range(100)}
    assert len(seen) == 100 and train[7]["image"].tobytes() in seen
    assert not seen & {test[i]["image"].tobytes() for i in range(100)}
    assert np.array_equal(Glyphs(16, 16, "train")[123]["image"], train[123]["image"])


def test_they_are_a_source_of_the_catalog():
    data = DataConfig(source="glyphs", image_height=16, image_width=24, image_channels=3)
    image = make_source(data, AutoencoderConfig())[5]["image"]
    assert image.shape == (16, 24, 3) and image.dtype == np.uint8 and image.max() > 200
    with pytest.raises(IndexError):
        Glyphs(8, 8, "test")[2_000]
    with pytest.raises(ConfigError, match="data.split='all'"):
        Glyphs(8, 8, "all")
