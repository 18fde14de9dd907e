"""A hidden token has exactly no influence, and a visible one has some: read off the Jacobian of causal blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import torch_scans

from ledit_jax.config import ModelConfig
from ledit_jax.models.attention import AttentionContext
from ledit_jax.models.block import Block

GRID, WIDTH = (3, 4), 8
CONFIG = ModelConfig(width=WIDTH, num_heads=2)


def random_block(seed):
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Block(CONFIG, nnx.Rngs(0))))
    rng = np.random.default_rng(seed)
    noise = jax.tree.map(lambda p: jnp.asarray(rng.normal(scale=0.4, size=p.shape), jnp.float32), params)
    return nnx.merge(graphdef, noise)


def influence(variant, num_blocks, causal=None):
    """[T, T] largest derivative of each query's output with respect to each token of the input."""
    blocks = [random_block(seed) for seed in range(num_blocks)]
    x = np.random.default_rng(9).normal(size=(1, GRID[0] * GRID[1], WIDTH)).astype(np.float32)
    condition = jnp.ones((1, WIDTH))

    def run(x):
        for block in blocks:
            x = block(x, condition, AttentionContext(GRID, causal), variant)[0]
        return x[0]

    jacobian = jax.jit(jax.jacrev(run))(x)[:, :, 0]  # T D T D
    return np.abs(jacobian).max(axis=(1, 3))


@pytest.mark.parametrize("variant", ["a", "b", "c", "d", "d_inclusive", "none"])
def test_one_block_sees_what_the_mask_shows(variant):
    mask = torch_scans.scan_mask(variant, *GRID).numpy()
    got = influence(variant, 1)
    assert (got[~mask] == 0).all()
    assert (got[mask] > 0).all()


@pytest.mark.parametrize(("variant", "leaks"), [("b", False), ("c", True), ("d", True)])
def test_two_blocks_leak_where_the_relation_is_not_transitive(variant, leaks):
    mask = torch_scans.scan_mask(variant, *GRID).numpy()
    two_steps = mask.astype(int) @ mask > 0
    assert (two_steps & ~mask).any() == leaks
    np.testing.assert_array_equal(influence(variant, 2) > 0, two_steps)


def test_below_the_threshold_everything_is_seen():
    assert (influence("d", 1, causal=jnp.array([False])) > 0).all()
    assert (influence("d", 1, causal=jnp.array([True])) == 0).any()
