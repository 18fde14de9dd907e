"""Do parts of an image repeat? Self-similarity at large shifts, held against real images of the same size.

A model beyond its training size tends to draw its subject several times (ScaleCrafter, arXiv 2310.07702, shows it).
"""

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from ledit_jax.errors import ConfigError

_NEAREST = 1 / 3
"""Smallest shift that counts, as a share of the side: nearer ones measure how thick and smooth things are."""
_OVERLAP = 1 / 3
"""Smallest part of the image that the shifted copy must still cover."""
_EMPTY = 0.5
"""An overlap whose contrast is below this share of the image's own cannot count as much as one that has all."""
_CHUNK = 64


def duplication_score(
    images: UInt8[np.ndarray, "B h w C"],
    labels: Integer[np.ndarray, " B"],
    real_images: UInt8[np.ndarray, "N h w C"],
    real_labels: Integer[np.ndarray, " N"],
) -> float:
    """How often an image repeats itself more than a real one of its class and size does; ties count half.

    0.5 is what real images get, 1 is a tiling, and below 0.5 there is less structure than in real ones (noise
    gets 0). This is the statistic of Mann and Whitney (1947) over `self_similarity`, class by class, because an
    upright stroke resembles its lower half and a ring does not. Raises ConfigError for a class without real images.
    """
    return rank_among_real(self_similarity(images), labels, self_similarity(real_images), real_labels)


def rank_among_real(
    values: Float[np.ndarray, " B"],
    labels: Integer[np.ndarray, " B"],
    real_values: Float[np.ndarray, " N"],
    real_labels: Integer[np.ndarray, " N"],
) -> float:
    """Probability that a value exceeds a real one of its class, ties counted half."""
    shares = np.empty(len(values))
    for label in np.unique(labels):
        real = real_values[real_labels == label]
        if not len(real):
            raise ConfigError(f"class {label} has no real images to compare with: give some of each class asked for")
        ours = values[labels == label][:, None]
        shares[labels == label] = ((ours > real) + 0.5 * (ours == real)).mean(axis=1)
    return float(shares.mean())


def self_similarity(images: UInt8[np.ndarray, "B h w C"]) -> Float[np.ndarray, " B"]:
    """The highest correlation, -1 to 1, of each image with itself moved far away; 0 for an image of one colour.

    For every shift of at least a third of a side, the correlation coefficient over the pixels that both copies
    cover (at least a third of the image): the masked normalised cross-correlation of Padfield (IEEE Transactions
    on Image Processing 21(5), 2012, equation 11), of the mean over channels with itself. Exactly 1 for an image
    that consists of copies of one tile. The denominator is kept above half of the image's own variance, so that
    two almost empty parts do not count as alike.
    """
    height, width = images.shape[1:3]
    shifts = _far_shifts(height, width)
    if not shifts.any():
        raise ConfigError(f"images of {height}x{width} are too small to be moved by a third: use 3 pixels or more")
    chunks = [images[i : i + _CHUNK].mean(axis=-1, dtype=np.float64) for i in range(0, len(images), _CHUNK)]
    return np.concatenate([_correlations(chunk)[:, shifts].max(axis=1) for chunk in chunks])


def _far_shifts(height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """Which of the shifts of `_correlations` count. The opposite of a shift has the same value and is left in."""
    down, right = abs(_shift_sizes(height))[:, None], abs(_shift_sizes(width))[None, :]
    overlap = np.clip(height - down, 0, None) * np.clip(width - right, 0, None)
    is_far = (down >= _NEAREST * height) | (right >= _NEAREST * width)
    return is_far & (overlap >= _OVERLAP * height * width)


def _shift_sizes(side: int) -> Float[np.ndarray, " y"]:
    return np.fft.fftfreq(2 * side, 1 / (2 * side))


def _correlations(x: Float[np.ndarray, "B h w"]) -> Float[np.ndarray, "B y x"]:
    """Correlation coefficient of each image's overlap with itself, for every shift; zero-padded FFTs."""
    size = 2 * x.shape[1], 2 * x.shape[2]
    x = x - x.mean(axis=(1, 2), keepdims=True)
    one, square = np.ones_like(x[:1]), x * x
    of_x, of_one, of_square = (np.fft.rfft2(a, size) for a in (x, one, square))

    def sums(first, second):
        """Sum over the overlap of first(p) * second(p + shift)."""
        return np.fft.irfft2(np.conj(first) * second, size)

    count = np.maximum(np.round(sums(of_one, of_one)), 1)
    mean1, mean2 = sums(of_x, of_one) / count, sums(of_one, of_x) / count
    covariance = sums(of_x, of_x) / count - mean1 * mean2
    variance1 = np.clip(sums(of_square, of_one) / count - mean1**2, 0, None)
    variance2 = np.clip(sums(of_one, of_square) / count - mean2**2, 0, None)
    own = square.mean(axis=(1, 2))[:, None, None]
    scale = np.maximum(np.sqrt(variance1 * variance2), _EMPTY * own)
    return np.where(own > 0, covariance / np.where(own > 0, scale, 1), 0.0)
