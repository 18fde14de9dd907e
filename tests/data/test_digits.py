"""The embedded handwritten digits."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ledit_jax.data.digits import Digits
from ledit_jax.errors import ConfigError


@pytest.mark.parametrize("size", [(16, 16), (24, 24), (32, 32), (16, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_records_are_resized_scans(size, channels):
    source, bunch = Digits(*size, "train", channels), load_digits()
    for i in (0, 700, len(source) - 1):
        record, original = source[i], source.indices[i]
        assert record["image"].shape == (*size, channels) and record["image"].dtype == np.uint8
        assert record["label"] == bunch.target[original]
        scan = Image.fromarray((bunch.images[original] * 15.9375).round().astype(np.uint8))
        expected = np.asarray(scan.resize(size[::-1], Image.BICUBIC))
        for channel in range(channels):
            np.testing.assert_array_equal(record["image"][..., channel], expected)


def test_split_is_complete_disjoint_and_stratified():
    train, test = Digits(8, 8, "train"), Digits(8, 8, "test")
    assert (len(train), len(test)) == (1442, 355)
    np.testing.assert_array_equal(np.sort(np.concatenate([train.indices, test.indices])), np.arange(1797))
    assert np.all(np.diff(train.indices) > 0) and np.all(np.diff(test.indices) > 0)
    share = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    assert share.shape == (10,) and np.all(abs(share - 0.2) < 0.005)


def test_strokes_are_bright_on_black():
    image = Digits(32, 32, "train")[0]["image"]
    assert image[:, :4].mean() < 10 and image.max() > 200


def test_out_of_range_and_unknown_split():
    with pytest.raises(IndexError):
        Digits(8, 8, "test")[355]
    with pytest.raises(ConfigError, match=r"data.split='validation'"):
        Digits(8, 8, "validation")
