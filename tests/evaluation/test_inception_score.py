"""The Inception Score on distributions whose score is known, and against the definition in plain NumPy."""

import numpy as np
import pytest

from ledit_jax.errors import DataError
from ledit_jax.evaluation.inception_score import inception_score


def from_definition(features, weights, split):
    """As ADM's evaluation puts it: p (log p - log mean p), summed and averaged, exp; mean over splits."""
    logits = features.astype(np.float64) @ weights
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    parts = [p[i : i + split] for i in range(0, len(p), split)]
    return np.mean([np.exp(np.mean(np.sum(q * (np.log(q) - np.log(q.mean(0))), axis=1))) for q in parts])


def test_equals_the_definition_with_a_last_split_that_is_smaller():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(5300, 12)).astype(np.float32), rng.normal(size=(12, 9)).astype(np.float32)
    features[5000:] *= 3  # so that splits matter
    score = inception_score(features, weights)
    assert score == pytest.approx(from_definition(features, weights, 5000), rel=1e-6)
    assert score != pytest.approx(from_definition(features, weights, 5300), rel=1e-2)
    assert score != pytest.approx(inception_score(features[::-1], weights), rel=1e-2), "splits are sequential"


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
