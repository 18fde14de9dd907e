"""Data whose denoiser is known exactly: a mixture of Gaussians with the falling spectrum of images."""

import numpy as np

SHAPE, D, K, BATCH = (4, 4, 2), 32, 12, 48

rng = np.random.default_rng(0)
SPECTRUM = 1 / np.arange(1, D + 1)
SPECTRUM /= np.sqrt(np.mean(SPECTRUM**2))
MEANS = 0.8 * SPECTRUM * rng.normal(size=(K, D))
VARIANCES = (0.6 * SPECTRUM * rng.uniform(0.3, 1.0, size=(K, D))) ** 2
NOISE = rng.normal(size=(BATCH, D)).astype(np.float32)


def exact(x, alpha, sigma, lib, log_prior=0.0):
    """(E[x0 | x], E[noise | x]) for x = alpha x0 + sigma noise, [B, D]; finite for any alpha and sigma.

    log_prior: of the Gaussians, [B, K]; a constant makes them equally likely.
    """
    total = alpha**2 * VARIANCES + sigma**2
    residual = x[:, None] - alpha * MEANS
    log_weight = -0.5 * (residual**2 / total + lib.log(total)).sum(-1) + log_prior
    weight = lib.exp(log_weight - log_weight.max(1, keepdims=True))
    weight = (weight / weight.sum(1, keepdims=True))[..., None]
    clean = (weight * (MEANS + alpha * VARIANCES / total * residual)).sum(1)
    return clean, (weight * (sigma * residual / total)).sum(1)


def class_prior(labels, lib):
    """log_prior [B, K] of classes: every other Gaussian for the labels 0 and 1, all of them for the null label 2."""
    mine = lib.arange(K)[None] % 2 == labels[:, None]
    return lib.where(mine | (labels[:, None] == 2), 0.0, -1e6)
