"""Features that were kept, and are no longer whole."""

import numpy as np
import pytest
from evaluation.toy_inception import ToyInception

from ledit_jax.errors import DataError
from ledit_jax.evaluation.features import FeatureExtractor
from ledit_jax.evaluation.statistics import measure_set


def test_a_kept_piece_that_is_damaged_is_refused(tmp_path):
    extractor, images = FeatureExtractor(ToyInception(), batch_size=4), tmp_path / "x.npz"
    np.savez(images, np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8))
    measure_set(str(images), lambda: extractor, folder=tmp_path / "kept")
    piece = tmp_path / "kept" / "000000.npz"
    with np.load(piece) as arrays:
        fewer = {name: array[:-1] for name, array in arrays.items()}
    np.savez(piece, **fewer)
    with pytest.raises(DataError, match="000000.npz holds 4 items, and 5 are needed: remove it"):
        measure_set(str(images), lambda: extractor, folder=tmp_path / "kept")
    np.savez(piece, **fewer | {"spatial": np.full_like(fewer["spatial"], np.nan)})
    with pytest.raises(DataError, match="000000.npz holds numbers that are not finite: remove it"):
        measure_set(str(images), lambda: extractor, folder=tmp_path / "kept")
