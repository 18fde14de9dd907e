"""The scans against a Python loop over pairs of cells."""

import jax.numpy as jnp
import numpy as np
import pytest
from oracles import torch_scans

from ledit_jax.config import ScanVariant
from ledit_jax.errors import ConfigError
from ledit_jax.ops.scan_masks import SCANS, scan_mask

VARIANTS = ScanVariant.__args__


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("grid", [(3, 5), (5, 3), (1, 4), (4, 1), (1, 1), (4, 4)])
def test_mask_is_the_loop_over_cells(variant, grid):
    got = scan_mask(variant, *grid)
    assert got.dtype == bool
    np.testing.assert_array_equal(got, torch_scans.scan_mask(variant, *grid).numpy())


def test_d_hides_the_strict_lower_right_only():
    visible = scan_mask("d", 3, 4)[5].reshape(3, 4)  # the query at row 1, column 1
    np.testing.assert_array_equal(visible, [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    inclusive = scan_mask("d_inclusive", 3, 4)[5].reshape(3, 4)
    np.testing.assert_array_equal(inclusive, [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])


def test_variants_are_all_different():
    masks = {scan_mask(variant, 4, 5).tobytes() for variant in VARIANTS}
    assert len(masks) == len(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rules_serve_traced_indices_too(variant):
    index = np.arange(12)
    row, col = index // 4, index % 4
    cells = [jnp.asarray(a) for a in (row[:, None], col[:, None], row[None], col[None])]
    np.testing.assert_array_equal(SCANS[variant](*cells), scan_mask(variant, 3, 4))


def test_unknown_variant_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean d_inclusive"):
        scan_mask("d_inclusiv", 3, 4)
