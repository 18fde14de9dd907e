"""MeanFlow: its identity on a known field, its gradient in float64, its draws, and the start from a flow's weights."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny import MEAN_FLOW, flow_config, network_of, noisy_params

from ledit_jax.diffusion import FlowProcess
from ledit_jax.diffusion.interpolant import Interpolant
from ledit_jax.models import init_params, make_apply

rng = np.random.default_rng(0)
X0, NOISE = (jnp.asarray(rng.normal(size=(5, 4, 4, 3)), jnp.float32) for _ in range(2))


def test_mean_flow_learns_the_average_velocity_of_a_known_field():
    """Data at one point c: along gvp x_t = alpha c + sigma noise, and the average velocity is known."""
    c, process = 0.4, FlowProcess("gvp", mean_flow_share=0.5)
    path = Interpolant("gvp")

    def exact(x, fed):
        t, r = fed[:, 0], fed[:, 0] - fed[:, 1]
        at = lambda times: tuple(a.reshape(-1, 1, 1, 1) for a in path.coefficients(times, jnp))  # noqa: E731
        (alpha, sigma, d_alpha, d_sigma), (alpha_r, sigma_r, _, _) = at(t), at(r)
        noise = (x - alpha * c) / sigma
        span = (t - r).reshape(-1, 1, 1, 1)
        jump = (x - alpha_r * c - sigma_r * noise) / jnp.where(span > 0, span, 1.0)
        return jnp.where(span > 0, jump, d_alpha * c + d_sigma * noise)

    times = jnp.array([[0.9, 0.2], [0.5, 0.1], [1.0, 0.0], [0.7, 0.7], [0.3, 0.3]])
    losses = process.training_losses(exact, jnp.full((5, 4, 4, 3), c), times, NOISE)
    assert losses["mse"].max() < 1e-9 and losses["loss"].max() < 1e-4
    wrong = process.training_losses(lambda x, t: 1.1 * exact(x, t), jnp.full((5, 4, 4, 3), c), times, NOISE)
    assert wrong["mse"].min() > 1e-4
    for steps in (1, 2):
        sampler = process.make_sampler("meanflow", steps)
        state = sampler.init(jnp.asarray(NOISE))
        for step in range(steps):
            state = sampler.step(exact, state, step, None)
        np.testing.assert_allclose(state, c, atol=1e-5)


def test_mean_flows_gradient_holds_the_target_and_the_weight():
    """Of u = weight x + slope t + bend (t - r), in float64."""
    weight, slope, bend = params = np.array([0.3, -0.7, 0.2])
    times = np.array([[0.9, 0.2], [0.5, 0.1], [0.7, 0.7], [1.0, 0.0], [0.4, 0.3]])

    def loss(params):
        at = lambda fed, i: fed[:, i].reshape(-1, 1, 1, 1)  # noqa: E731
        denoise = lambda x, fed: params[0] * x + params[1] * at(fed, 0) + params[2] * at(fed, 1)  # noqa: E731
        return FlowProcess(mean_flow_share=0.5).training_losses(denoise, X0, jnp.float32(times), NOISE)["loss"].sum()

    x0, noise = np.float64(X0), np.float64(NOISE)
    t, span = (a.reshape(-1, 1, 1, 1) for a in (times[:, 0], times[:, 0] - times[:, 1]))
    x, v = (1 - t) * x0 + t * noise, noise - x0
    off = weight * x + slope * t + bend * span - (v - span * (weight * v + slope + bend))
    squared = (off**2).sum(axis=(1, 2, 3), keepdims=True)
    value, gradient = jax.value_and_grad(loss)(jnp.float32(params))
    np.testing.assert_allclose(value, (squared / (squared + 1e-3)).sum(), rtol=1e-5)
    parts = [(2 * off * part / (squared + 1e-3)).sum() for part in (x, t, span)]
    np.testing.assert_allclose(gradient, parts, rtol=1e-4)


def test_a_flows_weights_start_a_mean_flow_and_say_the_same():
    flow, mean = flow_config(), flow_config(**MEAN_FLOW)
    params = init_params(network_of(mean), jax.random.key(1)) | noisy_params(flow)
    assert params.keys() - noisy_params(flow).keys() == {"span_embed"}
    x, t, labels = X0[:2, :, :, :1], jnp.array([0.3, 0.8]), jnp.array([1, 2])
    jumps = jnp.stack([t, jnp.array([0.1, 0.8])], axis=1)
    ours = make_apply(network_of(mean))(params, x, jumps, labels)
    np.testing.assert_array_equal(ours, make_apply(network_of(flow))(noisy_params(flow), x, t, labels))
    # What differentiates along a direction does not run in fused kernels.
    assert (network_of(mean).config.attention, network_of(flow).config.attention) == ("xla", "auto")


def test_mean_flow_draws_a_share_of_jumps():
    t, r = FlowProcess(mean_flow_share=0.25).draw_times(jax.random.key(0), 20_000).T
    assert (t >= r).all() and abs((t > r).mean() - 0.25) < 0.01
