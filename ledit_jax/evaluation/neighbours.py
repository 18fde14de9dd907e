"""Precision and recall by nearest neighbours, in blocks: no N x M matrix is ever held.

Distances are float32 on the accelerator, with features centred first. (ADM's script takes them in float16 where that
does not overflow, and so may differ in the third digit.)
"""

import functools
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ledit_jax.errors import DataError
from ledit_jax.progress import progress_bar

NUM_NEIGHBOURS = 3
"""k: a sample's radius reaches to its third nearest neighbour, itself not counted."""
_BLOCK = 2048


def precision_recall(
    reference: Float[np.ndarray, "N D"],
    samples: Float[np.ndarray, "M D2"],
    block: int = _BLOCK,
    progress: str | None = None,
) -> tuple[float, float]:
    """(precision, recall), shares from 0 to 1 (Kynkaanniemi et al. 2019, arXiv 1904.06991, with k = 3 as in ADM).

    Precision is the share of samples that lie within the radius of some reference point, recall that of reference
    points within the radius of some sample; on the rim counts as within. Blocks are spread over all local devices.
    progress: the caption of a progress bar. Raises DataError for fewer than k + 1 vectors on a side, for different
    dimensions, and for features that are not finite.
    """
    _check(reference, samples)
    center = reference.mean(axis=0, dtype=np.float64)
    with jax.default_matmul_precision("highest"):
        sides = [_Blocks((features - center).astype(np.float32), block) for features in (reference, samples)]
        total = sum(len(side) * (len(side) + 1) // 2 for side in sides) + len(sides[0]) * len(sides[1])
        with progress_bar(progress, total, "block", disable=progress is None) as bar:
            radii = [_squared_radii(side, bar.update) for side in sides]
            recalled, precise = _within(*sides, *radii, bar.update)
    return float(precise.mean()), float(recalled.mean())


def _check(reference: np.ndarray, samples: np.ndarray) -> None:
    if reference.shape[1] != samples.shape[1]:
        raise DataError(
            f"feature dimensions differ: {reference.shape[1]} of the reference and {samples.shape[1]} of the samples; "
            "take both sets from the same feature extractor"
        )
    for name, features in (("reference", reference), ("samples", samples)):
        if len(features) <= NUM_NEIGHBOURS:
            raise DataError(
                f"{name} has {len(features)} images: precision and recall need {NUM_NEIGHBOURS + 1} or more"
            )
        if not np.isfinite(features).all():
            raise DataError(f"features of the {name} are not finite: drop those images")


class _Blocks:
    """Feature vectors in equal blocks on every local device; what fills up the last block is infinitely far away."""

    def __init__(self, features: Float[np.ndarray, "N D"], limit: int):
        """limit: the most vectors in a block; blocks are as small as their number allows, so that little is filled."""
        self.count = len(features)
        self.size = -(-self.count // -(-self.count // limit))
        fill = -self.count % self.size
        padded = np.pad(features, ((0, fill), (0, 0)))
        norms = np.sum(np.square(padded), axis=1)
        norms[self.count :] = np.inf
        devices = jax.local_devices()
        self.features = [jax.device_put(padded, device) for device in devices]
        self.norms = [jax.device_put(norms, device) for device in devices]

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def block(self, index: int, device: int) -> tuple[Float[Array, "B D"], Float[Array, " B"]]:
        start = index * self.size
        return tuple(
            jax.lax.dynamic_slice_in_dim(a, start, self.size) for a in (self.features[device], self.norms[device])
        )


def _rounds(pairs: Iterator[tuple[int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """(device, i, j) of as many pairs as there are devices, so that those work side by side."""
    while chunk := list(itertools.islice(pairs, jax.local_device_count())):
        yield [(device, *pair) for device, pair in enumerate(chunk)]


def _squared_radii(side: _Blocks, on_block) -> Float[np.ndarray, " N"]:
    """Squared distance of each vector to its k-th nearest neighbour; distances are symmetric, so half will do."""
    nearest = np.full((len(side), side.size, NUM_NEIGHBOURS + 1), np.inf, np.float32)  # itself is the nearest
    pairs = itertools.combinations_with_replacement(range(len(side)), 2)
    for chunk in _rounds(pairs):
        found = [_nearest(*side.block(i, device), *side.block(j, device)) for device, i, j in chunk]
        for (_, i, j), (rows, columns) in zip(chunk, found, strict=True):
            _merge(nearest[i], rows)
            if i != j:
                _merge(nearest[j], columns)
            on_block(1)
    return nearest.reshape(-1, NUM_NEIGHBOURS + 1)[: side.count, -1]


def _merge(nearest: Float[np.ndarray, "B k"], found: Float[Array, "B k"]) -> None:
    """Keeps the smallest, in ascending order."""
    both = np.concatenate([nearest, np.asarray(found)], axis=1)
    both.sort(axis=1)
    nearest[:] = both[:, : nearest.shape[1]]


def _within(
    one: _Blocks, two: _Blocks, radii1, radii2, on_block
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " M"]]:
    """Which vectors of `one` lie within a radius of `two`, and which of `two` within one of `one`."""
    rims = [np.pad(r, (0, len(b) * b.size - b.count), constant_values=-1) for b, r in ((one, radii1), (two, radii2))]
    rims = [rim.reshape(-1, side.size) for rim, side in zip(rims, (one, two), strict=True)]
    inside = [np.zeros((len(side), side.size), bool) for side in (one, two)]
    for chunk in _rounds(itertools.product(range(len(one)), range(len(two)))):
        found = [
            _inside(*one.block(i, device), rims[0][i], *two.block(j, device), rims[1][j]) for device, i, j in chunk
        ]
        for (_, i, j), (in_two, in_one) in zip(chunk, found, strict=True):
            inside[0][i] |= np.asarray(in_two)
            inside[1][j] |= np.asarray(in_one)
            on_block(1)
    return inside[0].reshape(-1)[: one.count], inside[1].reshape(-1)[: two.count]


def _squared_distances(x, x_norms, y, y_norms) -> Float[Array, "B1 B2"]:
    sums = x_norms[:, None] + y_norms[None, :]
    squared = sums - 2.0 * (x @ y.T)
    # What rounding alone may leave of the distance between equal vectors counts as none, so that an image that is
    # there several times lies within its own radius, which is zero.
    rounding = 4.0 * jnp.finfo(jnp.float32).eps * np.sqrt(x.shape[1])
    return jnp.where(squared <= rounding * sums, jnp.where(jnp.isinf(sums), jnp.inf, 0.0), squared)


@jax.jit
def _nearest(x, x_norms, y, y_norms):
    distances = _squared_distances(x, x_norms, y, y_norms)
    smallest = functools.partial(_smallest, count=NUM_NEIGHBOURS + 1)
    return smallest(distances), smallest(distances.T)


def _smallest(distances: Float[Array, "B1 B2"], count: int) -> Float[Array, "B1 count"]:
    return -jax.lax.top_k(-distances, count)[0]


@jax.jit
def _inside(x, x_norms, x_rims, y, y_norms, y_rims):
    distances = _squared_distances(x, x_norms, y, y_norms)
    return (distances <= y_rims[None, :]).any(axis=1), (distances <= x_rims[:, None]).any(axis=0)
