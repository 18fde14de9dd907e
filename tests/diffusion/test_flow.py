"""The process of flow matching: conversions, times, losses, MeanFlow's identity, and training through the real loop."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import network_of, noisy_params, tiny_config, with_train

from ledit_jax.config import Config, FlowConfig, SampleConfig
from ledit_jax.diffusion import FlowProcess, make_process
from ledit_jax.diffusion.interpolant import Interpolant, shift_times
from ledit_jax.errors import CheckpointError, ConfigError
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


def flow_config(model=(), flow=(), train=(), sample=()) -> Config:
    values = tiny_config(train=dict(train)).to_dict()
    values["model"] |= dict(model)
    values["diffusion"]["objective"] = "flow"
    values["flow"] |= dict(flow)
    values["sample"] |= dict(sampler="euler", num_steps=4) | dict(sample)
    return Config.from_dict(values)


MEAN = dict(
    model=dict(span_embed=True),
    flow=dict(mean_flow_share=0.5, times="logit_normal"),
    sample=dict(sampler="meanflow", num_steps=2),
)


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


def test_mean_flow_draws_a_share_of_jumps():
    t, r = FlowProcess(mean_flow_share=0.25).draw_times(jax.random.key(0), 20_000).T
    assert (t >= r).all() and abs((t > r).mean() - 0.25) < 0.01


@pytest.mark.parametrize("case", [{}, MEAN], ids=["flow", "meanflow"])
def test_a_run_resumes_bit_for_bit_and_samples(case, tmp_path):
    config = flow_config(**case)
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


@pytest.mark.parametrize(
    "values, words",
    [
        (
            dict(sample=dict(sampler="ddim")),
            "sample.sampler=ddim does not fit a flow: use euler, heun, ab2, dpmpp, sde",
        ),
        (dict(sample=dict(sampler="meanflow")), "sample.sampler=meanflow does not fit a flow"),
        (dict(sample=dict(time_shift="0")), "sample.time_shift='0' must be none, auto or a number greater than 0"),
        (dict(flow=dict(time_shift="much")), "flow.time_shift='much' must be"),
        (dict(flow=dict(path="round")), "flow.path='round' is unknown"),
        (dict(flow=dict(times="beta")), "flow.times='beta' is unknown"),
        (dict(flow=dict(mean_flow_share=0.5)), "average velocities need the embedding of a span"),
        (
            dict(flow=dict(mean_flow_share=0.5), model=dict(span_embed=True, attention="splash")),
            "fused kernels do not have: use auto or xla",
        ),
        (dict(model=dict(causal_from_timestep=500)), "model.causal_from_timestep=500 is not between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_one_line(values, words):
    with pytest.raises(ConfigError, match=words) as error:
        flow_config(**{name: dict(fields) for name, fields in values.items()})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "section, fields, words",
    [
        ("sample", dict(sampler="heun"), "sample.sampler=heun does not fit DiT's diffusion: use ddpm, ddim, dpmpp"),
        ("sample", dict(time_shift="auto"), "is for flows"),
        ("flow", dict(path="gvp"), "flow.path=gvp has no effect with diffusion.objective=noise"),
    ],
)
def test_a_flows_settings_do_not_fit_a_diffusion(section, fields, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config().replaced(section, **fields)


def test_a_diffusions_settings_do_not_fit_a_flow():
    with pytest.raises(ConfigError, match="diffusion.num_timesteps=500 is of DiT's diffusion, and a flow has none"):
        flow_config().replaced("diffusion", num_timesteps=500)


def test_a_config_takes_the_samplers_that_its_process_makes():
    def taken(call):
        try:
            call()
        except ConfigError:
            return False
        return True

    names = typing.get_args(typing.get_type_hints(SampleConfig)["sampler"])
    for config, count in ((tiny_config(), 3), (flow_config(), 5), (flow_config(**MEAN), 6)):
        process = make_process(config)
        made = {name for name in names if taken(lambda name=name: process.make_sampler(name, 4))}
        assert made == {name for name in names if taken(lambda name=name: config.replaced("sample", sampler=name))}
        assert len(made) == count


def test_defaults_are_a_flow_without_a_shift():
    assert make_process(flow_config()) == FlowProcess(base_tokens=16, clip_denoised=True)
    assert FlowConfig() == Config().flow
