"""A bias and its gradient as a TPU gets it, against the plain sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ledit_jax.ops import rows


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_a_bias_and_its_derivatives(monkeypatch, platform):
    monkeypatch.setattr(rows, "current_platform", lambda: platform)
    gradient, x, bias = (jnp.asarray(a) for a in np.random.default_rng(0).normal(size=(3, 37, 5)).astype(np.float32))
    add = jax.checkpoint(lambda *a: rows.add_to_rows(*a))  # a new function, traced anew
    out, tangent = jax.jvp(add, (x, bias[0]), (gradient, bias[1]))  # MeanFlow's are such
    np.testing.assert_array_equal(out, x + bias[0])
    np.testing.assert_array_equal(tangent, gradient + bias[1])
    backward = jax.vjp(add, x, bias[0])[1]
    to_x, to_bias = backward(gradient)
    np.testing.assert_array_equal(to_x, gradient)
    np.testing.assert_allclose(to_bias, np.asarray(gradient, np.float64).sum(axis=0), rtol=1e-5)
    assert ("dot_general" in str(jax.make_jaxpr(backward)(gradient))) == (platform == "tpu")
