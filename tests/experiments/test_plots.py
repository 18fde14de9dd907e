"""Loss curves: which numbers are read, and what is drawn where."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.plots import loss_curve, moving_average, read_losses
from ledit_jax.errors import DataError


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
