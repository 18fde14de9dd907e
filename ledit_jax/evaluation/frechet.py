"""The Frechet distance between two sets of feature vectors, each taken as a Gaussian.

Everything is float64 NumPy, and holds up when there are fewer samples than dimensions.
"""

import numpy as np
from jaxtyping import Float

from ledit_jax.config import ConfigError


def gaussian_statistics(features: Float[np.ndarray, "N D"]) -> tuple[Float[np.ndarray, "D"], Float[np.ndarray, "D D"]]:
    """Mean and covariance (divided by N - 1, as ADM's evaluation does) of feature vectors, in float64.

    Raises ConfigError for fewer than two samples or features that are not finite.
    """
    num_samples = len(features)
    if num_samples < 2:
        raise ConfigError(f"num_samples={num_samples} gives no covariance: use at least 2 samples")
    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features)).any(axis=1).sum())
        raise ConfigError(f"features of {bad} of {num_samples} samples are not finite: drop those samples")
    mean = features.mean(axis=0)
    centered = features - mean
    return mean, centered.T @ centered / (num_samples - 1)


def frechet_distance(
    mean1: Float[np.ndarray, "D1"],
    cov1: Float[np.ndarray, "D1 D1"],
    mean2: Float[np.ndarray, "D2"],
    cov2: Float[np.ndarray, "D2 D2"],
) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), at least 0 (Heusel et al. 2017, arXiv 1706.08500, equation 6).

    tr (S1 S2)^(1/2) is the sum of the singular values of S1^(1/2) S2^(1/2). Roots of symmetric matrices always
    exist, so rank-deficient covariances need neither a jitter on the diagonal nor a dropped imaginary part.

    Raises ConfigError when the dimensions differ or an entry is not finite.
    """
    mean1, cov1, mean2, cov2 = (np.asarray(a, np.float64) for a in (mean1, cov1, mean2, cov2))
    if mean1.shape != mean2.shape or not cov1.shape == cov2.shape == mean1.shape * 2:
        raise ConfigError(
            f"feature dimensions differ: mean {mean1.shape} and covariance {cov1.shape} against {mean2.shape} and "
            f"{cov2.shape}; take both sets from the same feature extractor"
        )
    if not all(np.isfinite(a).all() for a in (mean1, cov1, mean2, cov2)):
        raise ConfigError("mean or covariance is not finite: check the features that it was computed from")
    root_trace = np.linalg.svd(_symmetric_root(cov1) @ _symmetric_root(cov2), compute_uv=False).sum()
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * root_trace
    return float(max(distance, 0.0))


def _symmetric_root(cov: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """The symmetric positive semi-definite square root."""
    values, vectors = np.linalg.eigh((cov + cov.T) / 2)
    # Eigenvalues of a rank-deficient matrix come out as rounding noise of either sign; a root would blow 1e-16 up
    # to 1e-8 in each of those directions. The threshold is that of numpy.linalg.matrix_rank.
    noise = np.abs(values).max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    roots = np.sqrt(np.where(values > noise, values, 0.0))
    return (vectors * roots) @ vectors.T
