"""Grids, sheets and curves: what is where, at which scale."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.plots import (
    Panel,
    draw_sheet,
    image_grid,
    loss_curve,
    moving_average,
    read_losses,
    save_png,
    sheet,
)
from ledit_jax.errors import DataError


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


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_the_pixels(tmp_path, channels):
    image = _noise(7, 9, channels)
    save_png(image, tmp_path / "new" / "image.png")
    read = np.asarray(Image.open(tmp_path / "new" / "image.png"))
    np.testing.assert_array_equal(read.reshape(image.shape), image)


def test_sheet_shows_every_panel_at_one_scale(tmp_path):
    """Images of one colour each are found again by that colour, and measured."""
    sizes = {(200, 0, 0): (16, 16), (0, 200, 0): (32, 32), (0, 0, 200): (16, 32)}
    panels = [
        Panel(f"{h} x {w}", "caption", np.broadcast_to(np.array(color, np.uint8), (4, h, w, 3)), columns=2)
        for color, (h, w) in sizes.items()
    ]
    sheet(panels, tmp_path / "sheet.png", ["left", "right"], scale=3, max_width=400)
    page = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert page.shape[1] < 400 + 2 * 30
    for color, (height, width) in sizes.items():
        found = (page == color).all(axis=-1)
        assert found.sum() == 4 * 9 * height * width
        assert found.any(axis=1).sum() == 2 * 3 * height and found.any(axis=0).sum() == 2 * 3 * width


def test_a_file_holds_the_sheet_that_is_drawn(tmp_path):
    panels = [Panel("16 x 16", "64 tokens", _noise(2, 16, 16, 1), 2)]
    sheet(panels, tmp_path / "new" / "sheet.png", scale=2)
    np.testing.assert_array_equal(Image.open(tmp_path / "new" / "sheet.png"), draw_sheet(panels, scale=2))


def test_sheet_has_text_above_the_images(tmp_path):
    images = np.full((2, 16, 16, 1), 255, np.uint8)
    sheet([Panel("16 x 16", "64 tokens", images, 2)], tmp_path / "with.png", ["zero", "one"])
    sheet([Panel("", "", images, 2)], tmp_path / "without.png")
    assert (np.asarray(Image.open(tmp_path / "with.png")) < 128).sum() > 100
    assert (np.asarray(Image.open(tmp_path / "without.png")) == 255).all()


def _write_metrics(path, records):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n")


def test_losses_are_read_in_order_and_resumed_steps_once(tmp_path):
    records = [{"step": s, "loss": 1.0 / s} for s in (10, 20, 30)]
    records += ['{"step": 40, "lo', {"step": 20, "loss": 7.0}, {"step": 25, "images_per_sec": 3.0}]
    _write_metrics(tmp_path / "metrics.jsonl", records)
    steps, losses = read_losses(tmp_path / "metrics.jsonl")
    np.testing.assert_array_equal(steps, [10, 20, 30])
    np.testing.assert_allclose(losses, [0.1, 7.0, 1 / 30])


def test_file_without_losses_is_refused(tmp_path):
    _write_metrics(tmp_path / "metrics.jsonl", [{"step": 1, "images_per_sec": 3.0}])
    with pytest.raises(DataError, match=r"metrics\.jsonl holds no record"):
        loss_curve({"run": tmp_path / "metrics.jsonl"}, tmp_path / "loss.png")


@pytest.mark.parametrize("window", [1, 5, 99])
def test_moving_average_matches_means_of_slices(window):
    values = np.random.default_rng(0).normal(size=21)
    smooth = moving_average(values, window)
    if window == 99:
        assert smooth[10] == pytest.approx(values.mean())
    else:
        half = window // 2
        expected = [values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))]
        np.testing.assert_allclose(smooth, expected)


def test_loss_curve_falls_from_upper_left_to_lower_right(tmp_path):
    _write_metrics(tmp_path / "metrics.jsonl", [{"step": s, "loss": float(np.exp(-s / 100))} for s in range(500)])
    loss_curve({"run": tmp_path / "metrics.jsonl"}, tmp_path / "plots" / "loss.png")
    page = np.asarray(Image.open(tmp_path / "plots" / "loss.png").convert("RGB")).astype(int)
    rows, columns = np.nonzero(page[..., 2] - page[..., 0] > 100)  # the blue of the curve
    assert len(rows) > 500
    left, right = columns < np.quantile(columns, 0.2), (columns > 150) & (rows > page.shape[0] // 2)
    assert rows[left].mean() < page.shape[0] / 2 and columns[right].mean() > page.shape[1] / 2
