"""Sums over the last axis as a TPU gets them, by themselves and in the layer norm, against the plain ones."""

import jax
import jax.numpy as jnp
import numpy as np

from ledit_jax.models.norm import layer_norm
from ledit_jax.ops import lanes


def test_layer_norm_and_its_derivatives(monkeypatch):
    rng = np.random.default_rng(0)
    x, tangent, gradient = (jnp.asarray(rng.normal(3, 2, (2, 5, 37)).astype(np.float32)) for _ in range(3))

    def derivatives():
        norm = jax.checkpoint(lambda x: layer_norm(x, 1e-6))  # a new function, traced anew
        out, along = jax.jvp(norm, (x,), (tangent,))
        # MeanFlow's loss has the gradient of a tangent.
        of_tangent = jax.grad(lambda x: (jax.jvp(norm, (x,), (tangent,))[1] * gradient).sum())(x)
        backward = jax.vjp(norm, x)[1]
        return (out, along, backward(gradient)[0], of_tangent), str(jax.make_jaxpr(backward)(gradient))

    expected, sums = derivatives()
    assert "dot_general" not in sums
    monkeypatch.setattr(lanes, "current_platform", lambda: "tpu")
    found, products = derivatives()
    assert products.count("dot_general") == products.count("reduce_sum") > 0, "a sum of eight after each product alone"
    for ours, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


def test_sums_are_exact_where_floats_are(monkeypatch):
    monkeypatch.setattr(lanes, "current_platform", lambda: "tpu")
    x = jnp.asarray(np.random.default_rng(0).integers(-1000, 1000, (3, 4, 1152)).astype(np.float32))
    np.testing.assert_array_equal(lanes.sum_over_lanes(x), x.sum(axis=-1, keepdims=True))
    np.testing.assert_array_equal(lanes.spread_over_lanes(x[..., :1], 8), np.repeat(x[..., :1], 8, axis=-1))
