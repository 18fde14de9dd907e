"""Scanning over stacked blocks, rematerialisation, and the tree-only mode of NNX: all change nothing but cost."""

import dataclasses
import functools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params
from oracles import ledit_params, torch_dit, torch_scans

from ledit_jax.config import ModelConfig
from ledit_jax.models.attention import AttentionContext

ROOT = Path(__file__).parents[2]
CONFIG = ModelConfig(depth=4, width=32, num_heads=4, num_classes=10)
QUICK = {"xla_backend_optimization_level": 0}
T, Y = jnp.array([10, 990]), jnp.array([3, 10])


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def random_model(config):
    return ledit_params.ledit_peer(torch_dit.torch_peer(config), config)


def assert_trees_close(a, b, rtol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * np.abs(y).max())


def count_primitives(jaxpr):
    """How often each primitive occurs in a jaxpr and in those inside it."""
    counts = Counter(eqn.primitive.name for eqn in jaxpr.eqns)
    for eqn in jaxpr.eqns:
        for inner in jaxprs_in_params(eqn.params):
            counts += count_primitives(inner)
    return counts


@pytest.mark.parametrize(("order", "scan_layers"), [("sa_ca", True), ("ca_then_sa", False)])
def test_stack_is_a_python_loop_over_the_layers(order, scan_layers):
    config = dataclasses.replace(CONFIG, block_order=order, scan_layers=scan_layers)
    graphdef, params = nnx.split(random_model(config))
    x, condition, grid = noise(2, 15, 32), noise(2, 32, seed=1), (3, 5)

    def stacked(params, x):
        return nnx.merge(graphdef, params).run_blocks(x, condition, AttentionContext(grid))[0]

    def looped(params, x):
        block, layers = nnx.split(nnx.merge(graphdef, params).blocks)
        for i, kind in enumerate(torch_scans.block_kinds(order, config.depth)):
            scan = config.scan if kind == "ca" else "none"
            x = nnx.merge(block, jax.tree.map(lambda p: p[i], layers))(x, condition, AttentionContext(grid), scan)[0]  # noqa: B023
        return x

    def run(function):
        loss = lambda params, x: (function(params, x) * noise(2, 15, 32, seed=2)).sum()  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), compiler_options=QUICK)(params, x)

    scans = count_primitives(jax.make_jaxpr(stacked)(params, x).jaxpr)["scan"]
    assert scans == (1 if scan_layers else 0)
    assert_trees_close(run(stacked), run(looped), rtol=1e-4)


@pytest.mark.parametrize("order", ["sa_ca", "ca_then_sa"])
def test_layers_read_in_place_are_the_same_layers(order):
    """As sampling reads them: no layer is taken out of a unit that was taken out of the stack."""
    model = random_model(dataclasses.replace(CONFIG, block_order=order))

    def run(x, condition):
        return model.run_blocks(x, condition, AttentionContext((3, 5)), keep=True)

    arguments = noise(2, 15, 32), noise(2, 32, seed=1)
    expected = jax.jit(run, compiler_options=QUICK)(*arguments)
    model.in_place = True
    function = functools.partial(run)  # a new function, traced anew
    assert count_primitives(jax.make_jaxpr(function)(*arguments).jaxpr)["dynamic_slice"] > 0
    assert_trees_close(jax.jit(function, compiler_options=QUICK)(*arguments), expected, rtol=1e-6)


@pytest.mark.parametrize("scan_layers", [True, False])
def test_remat_changes_the_work_and_not_the_gradients(scan_layers):
    results, counts, memory = {}, {}, {}
    for remat in ("none", "dots", "full"):
        config = dataclasses.replace(CONFIG, remat=remat, scan_layers=scan_layers, block_order="ca", depth=4)
        graphdef, params = nnx.split(random_model(config))

        def loss(params, graphdef=graphdef):
            return (nnx.merge(graphdef, params)(noise(2, 8, 12, 4), T, Y) ** 2).sum()

        gradient = jax.value_and_grad(loss)
        counts[remat] = count_primitives(jax.make_jaxpr(gradient)(params).jaxpr)
        compiled = jax.jit(gradient).lower(params).compile(QUICK)
        results[remat], memory[remat] = compiled(params), compiled.memory_analysis().temp_size_in_bytes
    assert_trees_close(results["dots"], results["none"], rtol=1e-5)
    assert_trees_close(results["full"], results["none"], rtol=1e-5)
    rematted = {remat: count["checkpoint"] + count["remat"] + count["remat2"] for remat, count in counts.items()}
    assert rematted["none"] == 0 and rematted["dots"] > 0 and rematted["full"] > 0
    # The backward pass of "dots" computes attention's products once more, that of "full" all products.
    assert counts["none"]["dot_general"] < counts["dots"]["dot_general"] < counts["full"]["dot_general"]
    # The compiler has not merged the recomputation away again.
    assert memory["none"] > memory["dots"] > memory["full"]


TREE_ONLY = """
import jax
import jax.numpy as jnp
from flax import nnx
from ledit_jax.config import ModelConfig
from tiny import build_ledit

model = build_ledit(ModelConfig(depth=2, width=16, num_heads=2, num_classes=4, block_order="ca"), 3, nnx.Rngs(0))
graphdef, params = nnx.split(model, nnx.Param)
x, t = jnp.ones((2, 4, 6, 3)), jnp.array([1, 2])

def loss(params):
    return ((nnx.merge(graphdef, params)(x, t, t) - 1) ** 2).mean()

grads = jax.jit(jax.grad(loss))(params)
print(float(grads["final_layer"]["linear"]["bias"][...].sum()))
"""


def test_forward_and_gradient_in_tree_only_mode():
    settings = {
        "NNX_GRAPH_MODE": "false",
        "NNX_GRAPH_UPDATES": "false",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT / "tests"),
    }
    command = [sys.executable, "-W", "error", "-c", TREE_ONLY]
    run = subprocess.run(command, env=os.environ | settings, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    # At initialisation the output is 0 everywhere, so that the bias' gradients sum to -2.
    assert abs(float(run.stdout.split()[-1]) + 2) < 1e-5
