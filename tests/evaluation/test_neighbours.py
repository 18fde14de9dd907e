"""Precision and recall against torch-fidelity's in float64, whatever the blocks; and known answers."""

import numpy as np
import pytest
from oracles import fidelity

from ledit_jax.errors import DataError
from ledit_jax.evaluation.neighbours import precision_recall


def features(seed, count, dim, shift=0.0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=(count, dim)) + shift).astype(np.float32)


@pytest.mark.parametrize("block", [7, 64, 2048])
@pytest.mark.parametrize("sizes", [(61, 90), (130, 40)])
def test_is_torch_fidelitys_in_blocks_of_any_size(sizes, block):
    reference, samples = features(0, sizes[0], 12), features(1, sizes[1], 12, shift=0.4, scale=0.9)
    expected = fidelity.precision_recall(reference, samples)
    assert all(0.05 < share < 0.95 for share in expected), "the case would not tell right from wrong"
    assert precision_recall(reference, samples, block) == pytest.approx(expected, abs=1e-6)


def test_far_from_the_origin_and_in_many_dimensions():
    reference, samples = features(2, 150, 500, shift=20), features(3, 200, 500, shift=20.02, scale=0.98)
    expected = fidelity.precision_recall(reference, samples)
    assert precision_recall(reference, samples, 64) == pytest.approx(expected, abs=1e-6)


def test_a_set_against_itself_and_against_one_far_away():
    one = features(4, 50, 30)
    assert precision_recall(one, one, 16) == (1.0, 1.0)
    assert precision_recall(one, one[::-1] + 1000, 16) == (0.0, 0.0)


def test_samples_that_are_all_the_same_image():
    """Their radius is zero, and each lies on its own rim: precise where the reference has it, and no recall."""
    reference = features(5, 40, 30, shift=3)
    samples = np.repeat(reference[:1], 20, axis=0)
    assert precision_recall(reference, samples, 8) == (1.0, 1 / 40)
    assert precision_recall(samples, samples, 8) == (1.0, 1.0)


def test_a_narrow_set_within_a_wide_one_is_precise_and_recalls_little():
    precision, recall = precision_recall(features(6, 400, 8), features(7, 400, 8, scale=0.2), 128)
    assert precision > 0.95 and recall < 0.2


@pytest.mark.parametrize(
    "reference, samples, message",
    [
        (np.ones((3, 2), np.float32), np.ones((9, 2), np.float32), "reference has 3 images.*need 4 or more"),
        (np.ones((9, 2), np.float32), np.ones((1, 2), np.float32), "samples has 1 images"),
        (np.ones((9, 2), np.float32), np.ones((9, 3), np.float32), "feature dimensions differ: 2.*3"),
        (np.ones((9, 2), np.float32), np.full((9, 2), np.nan, np.float32), "features of the samples are not finite"),
    ],
)
def test_errors_name_the_numbers(reference, samples, message):
    with pytest.raises(DataError, match=message):
        precision_recall(reference, samples)
