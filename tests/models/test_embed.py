"""Patches, timestep sinusoids and the sin/cos table, against PyTorch and diffusers."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding
from oracles import torch_dit

from ledit_jax.models.embed import patchify, timestep_frequencies, unpatchify
from ledit_jax.models.tables import sincos_table


def image(H, W, C):
    return np.random.default_rng(0).normal(size=(2, H, W, C)).astype(np.float32)


@pytest.mark.parametrize("patch_size", [2, 4])
def test_patchify_is_unfold(patch_size):
    x = image(8, 12, 3)
    h, w = 8 // patch_size, 12 // patch_size
    columns = F.unfold(torch.from_numpy(x).permute(0, 3, 1, 2), patch_size, stride=patch_size)  # B (C P P) T
    want = columns.reshape(2, 3, patch_size, patch_size, h, w).permute(0, 4, 5, 2, 3, 1).reshape(2, h, w, -1)
    np.testing.assert_array_equal(patchify(jnp.asarray(x), patch_size), want)
    np.testing.assert_array_equal(unpatchify(patchify(jnp.asarray(x), patch_size), patch_size), x)


@pytest.mark.parametrize("frequency_shift", [0.0, 1.0])
def test_timestep_sinusoids(frequency_shift):
    t = np.array([0, 1, 37, 500, 750, 751, 752, 999])
    got = timestep_frequencies(jnp.asarray(t), 10_000.0, frequency_shift)
    theirs = get_timestep_embedding(
        torch.from_numpy(t), 256, flip_sin_to_cos=True, downscale_freq_shift=frequency_shift
    )
    peer = torch_dit.TimestepEmbedder(8, 10_000.0, frequency_shift).sinusoids(torch.from_numpy(t))
    # float32 angles up to 999 carry an error of 6e-5 radians
    np.testing.assert_allclose(got, theirs, atol=2e-4)
    np.testing.assert_allclose(got, peer, atol=2e-4)


def test_frequency_shift_and_period_matter():
    t = jnp.array([500])
    base = timestep_frequencies(t, 10_000.0)
    assert abs(base - timestep_frequencies(t, 10_000.0, 1.0)).max() > 0.1
    assert abs(base - timestep_frequencies(t, 1_000.0)).max() > 0.1


@pytest.mark.parametrize("dim", [32, 1152])
def test_sincos_table_is_diffusers_on_squares(dim):
    theirs = get_2d_sincos_pos_embed(dim, 8, base_size=8, output_type="pt")
    np.testing.assert_allclose(sincos_table(8, 8, dim).reshape(64, dim), theirs, atol=2e-6)


@pytest.mark.parametrize("grid", [(4, 6), (6, 4), (1, 5)])
def test_sincos_table_on_rectangles(grid):
    want = torch_dit.sincos_table(*grid, 32)[0].reshape(*grid, 32)
    np.testing.assert_allclose(sincos_table(*grid, 32), want, atol=1e-6)


def test_sincos_table_encodes_the_column_first():
    table = sincos_table(4, 6, 32)
    np.testing.assert_array_equal(table[0, :, :16], table[3, :, :16])  # the same column, two rows
    np.testing.assert_array_equal(table[:, 0, 16:], table[:, 5, 16:])
    np.testing.assert_allclose(table[2, 3, [0, 8, 16, 24]], [np.sin(3), np.cos(3), np.sin(2), np.cos(2)], rtol=1e-6)
