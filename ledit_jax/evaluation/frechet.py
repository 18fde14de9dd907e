"""The Frechet distance between two sets of feature vectors, each taken as a Gaussian.

Everything is float64 on the host, and holds up when there are fewer samples than dimensions.
"""

import numpy as np
import scipy.linalg
from jaxtyping import Float

from ledit_jax.errors import DataError

Moments = tuple[Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]
"""Mean and covariance."""

_BLOCK = 4096
"""Samples that are held in float64 at a time."""
_MOST = 1e30
"""Beyond all features, and far from where distances overflow."""


class GaussianStatistics:
    """Mean and covariance of feature vectors that come in blocks, so that no more than a block need be held."""

    def __init__(self):
        self.num_samples = 0

    def add(self, features: Float[np.ndarray, "B D"]) -> None:
        """Takes a block of one or more. Raises DataError for features that are not finite."""
        bad = int((~np.isfinite(features)).any(axis=1).sum())
        if bad:
            first = self.num_samples
            raise DataError(
                f"features of {bad} of {len(features)} samples are not finite (of samples {first} to "
                f"{first + len(features) - 1}): drop those samples"
            )
        if not self.num_samples:
            # Sums are taken about the first block's mean, so that little cancels.
            self._origin = features.mean(axis=0, dtype=np.float64)
            self._sum = np.zeros_like(self._origin)
            self._products = np.zeros((features.shape[1],) * 2, order="F")
        for start in range(0, len(features), _BLOCK):
            centered = features[start : start + _BLOCK] - self._origin
            self._sum += centered.sum(axis=0)
            # The upper half of centered.T @ centered, added to what is there.
            self._products = scipy.linalg.blas.dsyrk(1.0, centered.T, beta=1.0, c=self._products, overwrite_c=True)
        self.num_samples += len(features)

    def moments(self) -> Moments:
        """Mean and covariance (divided by N - 1, as ADM's evaluation does). Raises DataError for N < 2."""
        if self.num_samples < 2:
            raise DataError(f"num_samples={self.num_samples} gives no covariance: use at least 2 samples")
        upper = np.triu(self._products)
        products = upper + np.triu(upper, 1).T - np.outer(self._sum, self._sum) / self.num_samples
        return self._origin + self._sum / self.num_samples, products / (self.num_samples - 1)


def check_moments(mean: Float[np.ndarray, " D"], cov: Float[np.ndarray, "D D"], name: str) -> None:
    """Raises DataError for a matrix that no set of features has as its covariance."""
    deviation = np.sqrt(np.maximum(np.diagonal(cov), 0))
    bound = np.outer(deviation, deviation)
    noise = 1e-4 * max(bound.max(initial=0), np.finfo(np.float32).tiny)  # float32 is what some files were made in
    if np.diagonal(cov).min(initial=0) < -noise:
        fault = "has negative variances"
    elif np.abs(cov - cov.T).max(initial=0) > noise:
        fault = "is not symmetric"
    elif (np.abs(cov) > bound * (1 + 1e-3) + noise).any():
        fault = "has covariances that are larger than the variances"
    elif max(np.abs(mean).max(initial=0), np.abs(cov).max(initial=0)) > _MOST:
        fault = f"or its mean has numbers beyond {_MOST:g}"
    elif cov.size and np.trace(cov) - np.square(_factor(cov)).sum() < -1e-3 * np.trace(cov):
        fault = "has negative eigenvalues"  # what is left after a Cholesky factor of the positive ones
    else:
        return
    raise DataError(f"{name} {fault}, so it is no covariance: make the file again")


def gaussian_statistics(features: Float[np.ndarray, "N D"]) -> Moments:
    """Mean and covariance (divided by N - 1, as ADM's evaluation does) of feature vectors, in float64.

    Raises DataError for fewer than two samples or features that are not finite.
    """
    statistics = GaussianStatistics()
    if len(features):
        statistics.add(features)
    return statistics.moments()


def frechet_distance(
    mean1: Float[np.ndarray, " D1"],
    cov1: Float[np.ndarray, "D1 D1"],
    mean2: Float[np.ndarray, " D2"],
    cov2: Float[np.ndarray, "D2 D2"],
) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), at least 0 (Heusel et al. 2017, arXiv 1706.08500, equation 6).

    With any factors S1 = A A^T and S2 = B B^T, the trace of (S1 S2)^(1/2) is the sum of the singular values of A^T B.
    Factors of symmetric semi-definite matrices always exist, so rank-deficient covariances need neither a jitter on
    the diagonal nor a dropped imaginary part.

    Raises DataError when the dimensions differ or an entry is not finite.
    """
    mean1, cov1, mean2, cov2 = (np.asarray(a, np.float64) for a in (mean1, cov1, mean2, cov2))
    if mean1.shape != mean2.shape or not cov1.shape == cov2.shape == mean1.shape * 2:
        raise DataError(
            f"feature dimensions differ: mean {mean1.shape} and covariance {cov1.shape} against {mean2.shape} and "
            f"{cov2.shape}; take both sets from the same feature extractor"
        )
    if not all(np.isfinite(a).all() for a in (mean1, cov1, mean2, cov2)):
        raise DataError("mean or covariance is not finite: check the features that it was computed from")
    product = _factor(cov1).T @ _factor(cov2)
    root_trace = scipy.linalg.svdvals(product, check_finite=False).sum() if product.size else 0.0
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * root_trace
    return float(max(distance, 0.0))


def _factor(cov: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D R"]:
    """A with A A^T = cov and as many columns as cov has rank: a Cholesky factor with pivoting (LAPACK's pstrf).

    Pivots below the threshold of numpy.linalg.matrix_rank are rounding noise; their roots would blow 1e-16 up to
    1e-8 in each of those directions.
    """
    noise = np.diagonal(cov).max() * len(cov) * np.finfo(np.float64).eps
    factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf((cov + cov.T) / 2, lower=1, tol=noise)
    unpivoted = np.empty((len(cov), rank))
    unpivoted[pivots - 1] = np.tril(factor)[:, :rank]
    return unpivoted
