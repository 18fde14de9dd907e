"""The Frechet distance against torch-fidelity's, scipy's matrix square root and closed forms."""

import numpy as np
import pytest
import scipy.linalg
from oracles import fidelity

from ledit_jax.errors import DataError
from ledit_jax.evaluation.frechet import check_moments, frechet_distance, gaussian_statistics


def _features(seed, num_samples, dim):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_samples, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)


def test_statistics_match_numpy_in_float64():
    features = (1000 + _features(0, 50, 7)).astype(np.float32)
    mean, cov = gaussian_statistics(features)
    assert mean.dtype == cov.dtype == np.float64
    np.testing.assert_allclose(mean, features.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-9)


@pytest.mark.parametrize("dim", [2, 5, 64])
def test_distance_is_torch_fidelitys_where_well_conditioned(dim):
    one, two = (_features(seed, 5 * dim + 5, dim) for seed in (1, 2))
    ours = frechet_distance(*gaussian_statistics(one), *gaussian_statistics(two))
    assert ours == pytest.approx(fidelity.fid(one, two), rel=1e-7)


def test_diagonal_covariances_have_a_closed_form():
    rng = np.random.default_rng(3)
    mean1, mean2, std1, std2 = rng.uniform(0.1, 3, (4, 12))
    std1[:4], std2[2:6] = 0, 0
    expected = np.sum((mean1 - mean2) ** 2) + np.sum((std1 - std2) ** 2)
    distance = frechet_distance(mean1, np.diag(std1**2), mean2, np.diag(std2**2))
    np.testing.assert_allclose(distance, expected, rtol=1e-12)


@pytest.mark.parametrize("num_samples", [(10, 25), (3, 60), (39, 200), (120, 20)])
def test_distance_matches_scipy_where_ill_conditioned(num_samples):
    """Fewer samples than dimensions, and scales over six decades. S1 S2 has no root that scipy could find there; with R
    the root of S1, R S2 R has the same eigenvalues and is symmetric, which scipy bears."""
    dim = 40
    scales = np.logspace(0, -3, dim)
    one, two = (gaussian_statistics(_features(s, n, dim) * scales) for s, n in zip((8, 9), num_samples, strict=True))
    root = np.real(scipy.linalg.sqrtm(one[1]))
    expected = np.sum((one[0] - two[0]) ** 2) + np.trace(one[1] + two[1])
    expected -= 2 * np.trace(np.real(scipy.linalg.sqrtm(root @ two[1] @ root)))
    np.testing.assert_allclose(frechet_distance(*one, *two), expected, rtol=1e-6)


@pytest.mark.parametrize("num_samples", [2, 10, 64, 500])
def test_a_set_is_at_distance_zero_of_itself_also_with_fewer_samples_than_dimensions(num_samples):
    mean, cov = gaussian_statistics(_features(4, num_samples, 128))
    assert frechet_distance(mean, cov, mean, cov) <= 1e-10 * np.trace(cov)
    assert frechet_distance(mean + 1, cov, mean, cov) == pytest.approx(128, rel=1e-6)


def test_rank_deficient_distance_in_a_rotated_basis():
    """Diagonal covariances of rank 3 and 4 in 40 dimensions, rotated together: the closed form still holds."""
    rng = np.random.default_rng(5)
    std1, std2 = np.zeros(40), np.zeros(40)
    std1[:3], std2[1:5] = rng.uniform(1, 5, 3), rng.uniform(1, 5, 4)
    rotation = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    cov1, cov2 = (rotation * std1**2) @ rotation.T, (rotation * std2**2) @ rotation.T
    zero = np.zeros(40)
    np.testing.assert_allclose(frechet_distance(zero, cov1, zero, cov2), np.sum((std1 - std2) ** 2), rtol=1e-12)


def test_distance_is_symmetric_and_scales_as_a_square():
    one, two = gaussian_statistics(_features(6, 20, 30)), gaussian_statistics(_features(7, 200, 30))
    distance = frechet_distance(*one, *two)
    assert distance == pytest.approx(frechet_distance(*two, *one), rel=1e-9)
    scaled = [a * 3 ** (i % 2 + 1) for i, a in enumerate((*one, *two))]
    assert frechet_distance(*scaled) == pytest.approx(9 * distance, rel=1e-9)


def test_errors_name_the_values():
    with pytest.raises(DataError, match="num_samples=1 "):
        gaussian_statistics(np.ones((1, 3)))
    with pytest.raises(DataError, match="features of 1 of 3 samples"):
        gaussian_statistics(np.array([[1.0, 2], [np.nan, np.nan], [3, 4]]))
    with pytest.raises(DataError, match=r"\(3,\).*\(4,\)"):
        frechet_distance(np.zeros(3), np.eye(3), np.zeros(4), np.eye(4))
    with pytest.raises(DataError, match="not finite"):
        frechet_distance(np.zeros(3), np.full((3, 3), np.inf), np.zeros(3), np.eye(3))


def test_moments_that_no_features_have_are_refused():
    """An indefinite matrix gave a distance, and huge means an infinite one; few samples make no eigenvalue negative."""
    indefinite = np.eye(8) - 1.5 / 8
    with pytest.raises(DataError, match="r.npz: sigma has negative eigenvalues, so it is no covariance"):
        check_moments(np.zeros(8), indefinite, "r.npz: sigma")
    with pytest.raises(DataError, match="r.npz: sigma or its mean has numbers beyond 1e[+]30"):
        check_moments(np.full(8, 1e200), np.eye(8), "r.npz: sigma")
    for num_samples in (3, 500):
        for dtype in (np.float64, np.float32):
            cov = gaussian_statistics(_features(0, num_samples, 300) * np.geomspace(1e-4, 10, 300))[1]
            check_moments(np.zeros(300), cov.astype(dtype), "r.npz: sigma")
    check_moments(np.zeros(8), np.zeros((8, 8)), "r.npz: sigma")
