"""Settings of a flow that cannot be, one line each, and those that mean what they say."""

import typing

import pytest
from tiny import MEAN_FLOW, flow_config, tiny_config

from ledit_jax.config import Config, FlowConfig, SampleConfig
from ledit_jax.diffusion import FlowProcess, make_process
from ledit_jax.errors import ConfigError


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
        (
            dict(flow=dict(times_mean=1.0)),
            "flow.times_mean=1.0 has no effect with flow.times=uniform: use logit_normal",
        ),
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
        ("sample", dict(sde_diffusion="sbdm"), "is for flows"),
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
    def taken(call, *arguments, **fields):
        try:
            call(*arguments, **fields)
        except ConfigError:
            return False
        return True

    names = typing.get_args(typing.get_type_hints(SampleConfig)["sampler"])
    for config, count in ((tiny_config(), 3), (flow_config(), 5), (flow_config(**MEAN_FLOW), 6)):
        make = make_process(config).make_sampler
        made = {name for name in names if taken(make, name, 4)}
        assert made == {name for name in names if taken(config.replaced, "sample", sampler=name)}
        assert len(made) == count


def test_defaults_are_a_flow_without_a_shift():
    assert make_process(flow_config()) == FlowProcess(base_tokens=16, clip_denoised=True)
    assert FlowConfig() == Config().flow
