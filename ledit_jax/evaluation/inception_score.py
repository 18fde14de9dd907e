"""The Inception Score, from features and the weights of the last layer."""

import numpy as np
import scipy.special
from jaxtyping import Float

from ledit_jax.errors import DataError

SPLIT = 5000
"""Samples of a split, in the order they come (ADM's evaluation); the last one may be smaller."""


def inception_score(features: Float[np.ndarray, "N D"], weights: Float[np.ndarray, "D K"]) -> float:
    """Mean over splits of exp(mean KL(p(y|x) || p(y))), from 1 to K (Salimans et al. 2016, arXiv 1606.03498).

    p(y|x) is the softmax of features @ weights, without a bias, as ADM's evaluation takes it. Raises DataError for
    no samples and for features that are not finite.
    """
    if not len(features) or not np.isfinite(features).all():
        raise DataError(f"features of {len(features)} samples are none, or not finite: drop what has no features")
    splits = range(0, len(features), SPLIT)
    return float(np.mean([score_of_split(features[start : start + SPLIT] @ weights) for start in splits]))


def score_of_split(logits: Float[np.ndarray, "N K"]) -> float:
    """exp(mean KL(p(y|x) || p(y))) of one split, with p(y) the mean of its p(y|x)."""
    log_p = scipy.special.log_softmax(logits.astype(np.float64), axis=1)
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    # A class that no sample takes adds nothing.
    entropy_of_marginal = scipy.special.entr(marginal).sum()
    return float(np.exp((p * log_p).sum(axis=1).mean() + entropy_of_marginal))
