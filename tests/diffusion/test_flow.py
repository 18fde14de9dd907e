"""The process of flow matching: conversions, times, losses, and training through the real loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import MEAN_FLOW, flow_config, network_of, noisy_params, with_train

from ledit_jax.diffusion import FlowProcess, make_process
from ledit_jax.diffusion.interpolant import Interpolant, shift_times
from ledit_jax.errors import CheckpointError
from ledit_jax.models import make_apply
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.training.loop import train

PATHS = ["linear", "gvp"]
rng = np.random.default_rng(0)
X0, NOISE = (jnp.asarray(rng.normal(size=(5, 4, 4, 3)), jnp.float32) for _ in range(2))
TIMES = jnp.array([0.0, 1e-3, 0.4, 0.999, 1.0], jnp.float32)


@pytest.mark.parametrize("path", PATHS)
def test_velocity_noise_data_and_score_follow_from_each_other(path):
    path = Interpolant(path)
    x, v = path.add_noise(X0, TIMES, NOISE), path.velocity(X0, TIMES, NOISE)
    np.testing.assert_allclose(path.clean(x, TIMES, v), X0, atol=2e-6)
    np.testing.assert_allclose(path.noise(x, TIMES, v), NOISE, atol=2e-6)
    inside = slice(1, 4)
    sigma = path.coefficients(np.asarray(TIMES))[1].reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(path.score(x, TIMES, v)[inside], (-NOISE / sigma)[inside], rtol=1e-4)
    for estimate in ({"clean": X0}, {"noise": NOISE}, {"score": -NOISE / np.maximum(sigma, 1e-3)}):
        again = path.velocity_from(x, TIMES, **estimate)
        assert np.isfinite(again).all()
        np.testing.assert_allclose(again[2], v[2], rtol=2e-4, atol=2e-5)
    assert np.isfinite(path.score(x, TIMES, v)).all()


@pytest.mark.parametrize("path", PATHS)
def test_the_velocity_is_the_paths_derivative(path):
    path, times = Interpolant(path), TIMES
    derivative = jax.jvp(lambda t: path.add_noise(X0, t, NOISE), (times,), (jnp.ones_like(times),))[1]
    np.testing.assert_allclose(path.velocity(X0, times, NOISE), derivative, atol=1e-5)


def test_the_loss_and_its_gradient_in_float64():
    """Of a network whose output is weight * x + slope * t."""

    def loss(params, process, times):
        denoise = lambda x, t: params[0] * x + params[1] * t.reshape(-1, 1, 1, 1)  # noqa: E731
        return process.training_losses(denoise, X0, times, NOISE)["loss"].mean()

    params = jnp.array([0.3, -0.7])
    for path in PATHS:
        alpha, sigma, d_alpha, d_sigma = (
            a.reshape(-1, 1, 1, 1) for a in Interpolant(path).coefficients(np.asarray(TIMES, np.float64))
        )
        x, target, t = (
            alpha * X0 + sigma * NOISE,
            d_alpha * X0 + d_sigma * NOISE,
            np.asarray(TIMES).reshape(-1, 1, 1, 1),
        )
        off = 0.3 * x - 0.7 * t - target
        value, gradient = jax.value_and_grad(loss)(params, FlowProcess(path), TIMES)
        np.testing.assert_allclose(value, np.mean(off**2), rtol=1e-5)
        np.testing.assert_allclose(
            gradient, [np.mean(2 * off * x), np.mean(2 * off * np.broadcast_to(t, x.shape))], rtol=1e-4
        )


def test_times_are_drawn_as_they_are_named():
    key = jax.random.key(0)
    uniform = FlowProcess().draw_times(key, 20_000)
    np.testing.assert_allclose([uniform.min(), uniform.mean(), uniform.max()], [0, 0.5, 1], atol=0.01)
    drawn = FlowProcess(draw="logit_normal", times_mean=-0.4, times_std=1.2).draw_times(key, 20_000)
    logits = np.log(drawn) - np.log1p(-drawn)
    np.testing.assert_allclose([logits.mean(), logits.std()], [-0.4, 1.2], atol=0.03)
    shifted = FlowProcess(train_shift=3.0).draw_times(key, 20_000)
    np.testing.assert_allclose(shifted, shift_times(uniform, 3.0), rtol=1e-6)
    np.testing.assert_allclose(np.median(shifted), 0.75, atol=0.01)


def test_the_convention_of_sit_turns_time_and_drops_channels():
    asked = []

    def denoise(x, t):
        asked.append(np.asarray(t))
        return jnp.concatenate([x, 7 * jnp.ones_like(x)], axis=-1)

    process = FlowProcess(convention="sit", time_scale=10.0)
    assert process.out_channels(3) == 6 and FlowProcess().out_channels(3) == 3
    np.testing.assert_array_equal(process.velocity(denoise, X0, TIMES), X0)
    np.testing.assert_allclose(asked[0], 10 * (1 - TIMES))
    with pytest.raises(ValueError, match="it must return"):
        process.velocity(lambda x, t: x, X0, TIMES)


def test_causal_from_a_time_is_in_noise_time():
    """T' = 0.5: causal where t >= 0.5, which a network of SiT's convention is fed as 1 - t <= 0.5."""
    for convention, fed in (("noise_time", (0.5, 1.0)), ("sit", (0.0, 0.5))):
        config = flow_config(model=dict(causal_from_timestep=0.5), flow=dict(convention=convention))
        network = network_of(config)
        assert network.causal_times == fed
        params, apply = noisy_params(config), make_apply(network)
        x, labels = jnp.asarray(rng.normal(size=(2, 8, 8, 1)), jnp.float32), jnp.zeros(2, jnp.int32)
        always = dataclasses.replace(network, causal_times=None)
        for t in (0.4, 0.6):
            times = make_process(config).fed_times(jnp.full(2, t))
            same = np.array_equal(apply(params, x, times, labels), make_apply(always)(params, x, times, labels))
            assert same == (t >= 0.5)


def test_a_mean_flow_resumes_bit_for_bit_and_samples(tmp_path):
    """Plain flows do in tests/training/test_mmdit_training.py."""
    config = flow_config(**MEAN_FLOW)
    whole = train(config, tmp_path / "whole")
    train(with_train(config, num_steps=4), tmp_path / "parts")
    parts = train(config, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, whole.params, parts.params)
    with pytest.raises(CheckpointError, match=r"flow.time_scale=1000.0, but .*parts/.* was trained with 1.0: set it"):
        train(config.replaced("flow", time_scale=1000.0), tmp_path / "parts")
    pipeline = LEDiTPipeline.from_checkpoint(tmp_path / "whole")
    images = pipeline([1, 2], 12, 8, cfg_scale=2.0)
    assert images.shape == (2, 12, 8, 1)
    np.testing.assert_array_equal(images, pipeline([1, 2], 12, 8, cfg_scale=2.0))
    options = pipeline.options(sampler="sde", time_shift="auto", num_steps=3)
    assert (pipeline([1, 2], 12, 8, options=options) != images).any()
