"""Grids and sheets: what is where, at which scale."""

import numpy as np
import pytest
from PIL import Image

from ledit_jax.sampling.sheets import Panel, draw_sheet, image_grid, save_png, save_sheet


def _noise(*shape):
    return np.random.default_rng(0).integers(0, 200, shape, np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_holds_every_image_in_reading_order(channels):
    images = _noise(5, 4, 6, channels)
    grid = image_grid(images, columns=3, scale=2, pad=1)
    assert grid.shape == (2 * 8 + 1, 3 * 12 + 2, channels) and grid.dtype == np.uint8
    for index, image in enumerate(images):
        y, x = index // 3 * 9, index % 3 * 13
        tile = grid[y : y + 8, x : x + 12]
        for dy, dx in np.ndindex(2, 2):
            np.testing.assert_array_equal(tile[dy::2, dx::2], image)
    assert (grid[8] == 255).all() and (grid[:, 12] == 255).all() and (grid[9:, 26:] == 255).all()


def test_a_framed_grid_has_grey_between_and_around():
    images = _noise(5, 4, 6, 3)
    grid = image_grid(images, columns=3, pad=2, framed=True)
    assert grid.shape == (2 * 6 + 2, 3 * 8 + 2, 3)
    for index, image in enumerate(images):
        y, x = index // 3 * 6 + 2, index % 3 * 8 + 2
        np.testing.assert_array_equal(grid[y : y + 4, x : x + 6], image)
        grid[y : y + 4, x : x + 6] = 128
    assert (grid == 128).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_the_pixels(tmp_path, channels):
    image = _noise(7, 9, channels)
    save_png(image, tmp_path / "new" / "image.png")
    read = np.asarray(Image.open(tmp_path / "new" / "image.png"))
    np.testing.assert_array_equal(read.reshape(image.shape), image)


def test_panels_below_one_another_begin_at_the_same_place():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    titles = ["a title that is much wider than its image", "", "", ""]
    panels = [
        Panel(title, "", np.broadcast_to(np.array(color, np.uint8), (1, 8, 8 * (index % 2 + 1), 3)), columns=1)
        for index, (color, title) in enumerate(zip(colors, titles, strict=True))
    ]
    page = np.asarray(draw_sheet(panels, scale=3, max_width=10, across=2))
    y, x = zip(*[np.argwhere((page == color).all(axis=-1)).min(axis=0) for color in colors], strict=True)
    assert x[0] == x[2] < x[1] - 300 and x[1] == x[3] and y[0] == y[1] < y[2] == y[3]
    headed = np.asarray(draw_sheet(panels, scale=3, max_width=10, across=2, headings=["one", "two"]))
    moved = [np.argwhere((headed == color).all(axis=-1)).min(axis=0) for color in colors]
    below = moved[0][0] - y[0]
    assert below > 0 and [(int(row), int(column)) for row, column in moved] == [
        (y[i] + below * (1 + i // 2), x[i]) for i in range(4)
    ]
    assert (headed[: moved[0][0]] != 255).sum() > (page[: y[0]] != 255).sum()  # "one" is above the first


def test_sheet_shows_every_panel_at_one_scale(tmp_path):
    """Images of one colour each are found again by that colour, and measured."""
    sizes = {(200, 0, 0): (16, 16), (0, 200, 0): (32, 32), (0, 0, 200): (16, 32)}
    panels = [
        Panel(f"{h} x {w}", "caption", np.broadcast_to(np.array(color, np.uint8), (4, h, w, 3)), columns=2)
        for color, (h, w) in sizes.items()
    ]
    save_sheet(panels, tmp_path / "sheet.png", ["left", "right"], scale=3, max_width=400)
    page = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert page.shape[1] < 400 + 2 * 30
    for color, (height, width) in sizes.items():
        found = (page == color).all(axis=-1)
        assert found.sum() == 4 * 9 * height * width
        assert found.any(axis=1).sum() == 2 * 3 * height and found.any(axis=0).sum() == 2 * 3 * width


def test_a_file_holds_the_sheet_that_is_drawn(tmp_path):
    panels = [Panel("16 x 16", "64 tokens", _noise(2, 16, 16, 1), 2)]
    save_sheet(panels, tmp_path / "new" / "sheet.png", scale=2)
    np.testing.assert_array_equal(Image.open(tmp_path / "new" / "sheet.png"), draw_sheet(panels, scale=2))


def test_sheet_has_text_above_the_images(tmp_path):
    images = np.full((2, 16, 16, 1), 255, np.uint8)
    save_sheet([Panel("16 x 16", "64 tokens", images, 2)], tmp_path / "with.png", ["zero", "one"])
    save_sheet([Panel("", "", images, 2)], tmp_path / "without.png")
    assert (np.asarray(Image.open(tmp_path / "with.png")) < 128).sum() > 100
    assert (np.asarray(Image.open(tmp_path / "without.png")) == 255).all()
