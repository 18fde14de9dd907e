"""The Inception Score against torch-fidelity's, and on distributions whose score is known."""

import numpy as np
import pytest
from oracles import fidelity

from ledit_jax.errors import DataError
from ledit_jax.evaluation.inception_score import inception_score


def test_is_torch_fidelitys_in_splits_of_5000():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(10_000, 12)).astype(np.float32), rng.normal(size=(12, 9)).astype(np.float32)
    features[5000:] *= 3  # so that splits matter
    score = inception_score(features, weights)
    logits = features @ weights
    assert score == pytest.approx(fidelity.inception_score(logits, splits=2), rel=1e-6)
    assert score != pytest.approx(fidelity.inception_score(logits, splits=1), rel=1e-2)


def test_the_last_split_may_be_smaller():
    """And counts as much as a whole one; splits are in the order that samples come in."""
    rng = np.random.default_rng(1)
    features, weights = rng.normal(size=(5300, 12)).astype(np.float32), rng.normal(size=(12, 9)).astype(np.float32)
    features[5000:] *= 3
    parts = [fidelity.inception_score(part @ weights, splits=1) for part in (features[:5000], features[5000:])]
    score = inception_score(features, weights)
    assert score == pytest.approx(np.mean(parts), rel=1e-6)
    assert score != pytest.approx(inception_score(features[::-1], weights), rel=1e-2)


def test_sure_of_k_classes_in_equal_parts_is_k():
    features = 1000.0 * np.tile(np.eye(7, dtype=np.float32), (10, 1))
    assert inception_score(features, np.eye(7, dtype=np.float32)) == pytest.approx(7, rel=1e-12)


def test_knowing_nothing_and_showing_one_class_are_1():
    weights = np.eye(5, dtype=np.float32)
    assert inception_score(np.zeros((50, 5), np.float32), weights) == pytest.approx(1, rel=1e-12)
    assert inception_score(np.tile(1000.0 * weights[:1], (50, 1)), weights) == pytest.approx(1, rel=1e-12)


def test_errors():
    with pytest.raises(DataError, match="not finite"):
        inception_score(np.full((4, 2), np.nan, np.float32), np.eye(2, dtype=np.float32))
