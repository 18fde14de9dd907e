"""What the metrics need of a set of images, computed, or read from a file that holds it."""

import dataclasses
import functools
import hashlib
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ledit_jax.errors import ConfigError, DataError
from ledit_jax.evaluation.features import FeatureExtractor
from ledit_jax.evaluation.frechet import GaussianStatistics, Moments, check_moments
from ledit_jax.evaluation.images import Images, NpzImages, Size, open_images
from ledit_jax.files import Place, as_place, check_writable, local_copy, whole_file
from ledit_jax.files.readers import Header, Shape, array_names, check_array, read_npz, reading
from ledit_jax.models.inception import NUM_FEATURES, NUM_SPATIAL

_log = logging.getLogger(__name__)
MAX_NEIGHBOURS = 10_000
"""Most images of a reference, unless it is an npz, that precision and recall look at: as many as ADM's files have."""
_MOMENTS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
_STORED: dict[str, tuple[Shape, str]] = {
    "mu": ((NUM_FEATURES,), "f"),
    "sigma": ((NUM_FEATURES, NUM_FEATURES), "f"),
    "mu_s": ((NUM_SPATIAL,), "f"),
    "sigma_s": ((NUM_SPATIAL, NUM_SPATIAL), "f"),
    "features": ((None, NUM_FEATURES), "f"),
    "num_samples": ((), "iu"),
    "size": ((2,), "iu"),
}
"""What a file may hold beside images: shape, and kinds of numbers."""
_MOST_FEATURES = 500_000


@dataclass(frozen=True)
class SetStatistics:
    """A set of images as the metrics see it; what is None was in no file and could not be computed."""

    name: str
    num_samples: int | None
    """Images behind the means and covariances; None where the file does not say."""
    size: Size | None
    pool: tuple[np.ndarray, np.ndarray] | None = None
    """Mean [2048] and covariance [2048, 2048] of pool_3."""
    spatial: tuple[np.ndarray, np.ndarray] | None = None
    """The same [2023] of mixed_6/conv."""
    features: Float[np.ndarray, "N D"] | None = None
    """pool_3 of all images, or of MAX_NEIGHBOURS of a large reference, evenly spread."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of every number here; the name takes no part."""
        digest = hashlib.sha256(repr((self.num_samples, self.size)).encode())
        for array in (*(self.pool or ()), *(self.spatial or ()), self.features):
            digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def measure_set(
    name: str,
    extractor: Callable[[], FeatureExtractor],
    *,
    is_reference: bool = False,
    height: int | None = None,
    width: int | None = None,
    folder: Path | None = None,
    overwrite: bool = False,
) -> SetStatistics:
    """Statistics of what `open_images` can open, or of a file of saved ones.

    Stored means and covariances are taken as they are (ADM's reference files have those of the whole data set), and
    the features come from the images beside them. The extractor is asked for only if there are images. For `folder`
    and `overwrite` see `FeatureExtractor.pieces`. Raises DataError for what cannot be read, and errors as those two do.
    """
    path = Path(local_copy(name))
    stored = _read_stored(path) if path.suffix == ".npz" and path.is_file() else None
    if stored and stored.pool and not _has_images(path):
        return stored
    images = open_images(name, height, width)
    keep_all = not is_reference or isinstance(images, NpzImages)
    computed = _compute(images, extractor(), None if keep_all else MAX_NEIGHBOURS, folder, overwrite)
    if stored and stored.pool:
        _log.info("%s: means and covariances are those stored in the file", name)
        kept = {"pool": stored.pool, "num_samples": stored.num_samples} | (
            {"spatial": stored.spatial} if stored.spatial else {}
        )
        return dataclasses.replace(computed, **kept)
    return computed


def unmeasured_set(name: str) -> SetStatistics:
    """What `open_images` can open, with no statistics."""
    images = open_images(name)
    return SetStatistics(images.name, images.count, images.size)


def check_statistics_file(path: Place) -> None:
    """Raises ConfigError for a suffix that `measure_set` would not read, and OutputError for a place that cannot be."""
    if path.suffix != ".npz":
        raise ConfigError(f"{path} must end in .npz to hold statistics")
    check_writable(path)


def save_statistics(statistics: SetStatistics, path: str | Place) -> None:
    """Writes mu, sigma, mu_s, sigma_s (ADM's names) and pool_3 to an npz that `measure_set` reads back.

    Raises ConfigError for statistics without images, and errors as `check_statistics_file` does.
    """
    path = as_place(path)
    check_statistics_file(path)
    if statistics.features is None or statistics.size is None or not (statistics.pool and statistics.spatial):
        raise ConfigError(f"{statistics.name} must be two or more images to save its statistics, not statistics alone")
    arrays = {"mu": statistics.pool[0], "sigma": statistics.pool[1]}
    arrays |= {"mu_s": statistics.spatial[0], "sigma_s": statistics.spatial[1]}
    arrays |= {"features": statistics.features, "num_samples": statistics.num_samples, "size": statistics.size}
    with whole_file(path) as file:
        np.savez(file, **arrays)


def _compute(
    images: Images, extractor: FeatureExtractor, keep: int | None, folder: Path | None, overwrite: bool
) -> SetStatistics:
    pool, spatial, features, seen = GaussianStatistics(), GaussianStatistics(), [], 0
    kept = np.arange(images.count)
    if keep is not None and keep < images.count:
        kept = np.linspace(0, images.count - 1, keep).astype(int)
    for pool_piece, spatial_piece in extractor.pieces(images, folder, Path(images.name).name, overwrite=overwrite):
        pool.add(pool_piece)
        spatial.add(spatial_piece)
        here = kept[np.searchsorted(kept, seen) : np.searchsorted(kept, seen + len(pool_piece))] - seen
        features.append(pool_piece[here])
        seen += len(pool_piece)
    moments = (pool.moments(), spatial.moments()) if seen > 1 else (None, None)
    return SetStatistics(images.name, seen, images.size, *moments, np.concatenate(features))


def _has_images(path: Path) -> bool:
    with reading(path), zipfile.ZipFile(path) as archive:
        return "arr_0" in array_names(archive)


def _read_stored(path: Path) -> SetStatistics:
    """What an npz holds beside images; moments are None if there are none."""

    def wanted(name: str, header: Header) -> bool:
        if name in _STORED:
            shape, kinds = _STORED[name]
            check_array(path, name, header, shape, kinds)
            if name == "features" and header.shape[0] > _MOST_FEATURES:
                raise DataError(f"{path}: features of {header.shape[0]} images are more than {_MOST_FEATURES}")
        return name in _STORED

    held = read_npz(path, wanted)
    for name, array in held.items():
        if not np.isfinite(array).all():
            raise DataError(f"{path}: {name} holds values that are not finite: make the file again")
    counts = np.append(held.get("size", []), held.get("num_samples", []))
    if (counts < 1).any():
        raise DataError(f"{path}: size and num_samples are {counts.astype(int).tolist()}: make the file again")
    moments = {kind: _stored_moments(path, held, *names) for kind, names in _MOMENTS.items()}
    return SetStatistics(
        name=str(path),
        num_samples=int(held["num_samples"]) if "num_samples" in held else None,
        size=tuple(int(side) for side in held["size"]) if "size" in held else None,
        features=held.get("features") if moments["pool"] else None,
        **moments,
    )


def _stored_moments(path: Path, held: dict[str, np.ndarray], mean: str, cov: str) -> Moments | None:
    if mean not in held and cov not in held:
        return None
    for name in (mean, cov):
        if name not in held:
            raise DataError(f"{path}: {name} is missing: statistics are a mean and a covariance, make the file again")
    moments = held[mean].astype(np.float64), held[cov].astype(np.float64)
    check_moments(*moments, f"{path}: {cov}")
    return moments
