"""A run goes on only as what it was: another network or process of the same shapes is refused, in one line."""

import pytest
from tiny import flow_config, tiny_config

from ledit_jax.errors import CheckpointError
from ledit_jax.training.checkpoint import check_same_meaning


@pytest.mark.parametrize(
    "saved, section, name, value",
    [
        (tiny_config(), "diffusion", "num_timesteps", 500),
        (tiny_config(), "diffusion", "beta_start", 1e-3),
        (tiny_config(), "diffusion", "beta_end", 0.03),
        (flow_config(), "flow", "path", "gvp"),
        (flow_config(), "flow", "convention", "sit"),
        (flow_config(), "flow", "time_scale", 1000.0),
        (flow_config(), "model", "timestep_max_period", 100.0),
        (flow_config(), "model", "num_heads", 1),
        (tiny_config(), "autoencoder", "scale", 1.0),
        (tiny_config(), "text", "length", 8),
    ],
)
def test_another_meaning_is_refused(saved, section, name, value, tmp_path):
    with pytest.raises(CheckpointError) as error:
        check_same_meaning(saved, saved.replaced(section, **{name: value}), tmp_path)
    old = getattr(getattr(saved, section), name)
    assert str(error.value).startswith(f"{section}.{name}={value!r}, but {tmp_path} was trained with {old!r}: set it")
    assert "\n" not in str(error.value)


def test_a_diffusion_does_not_go_on_as_a_flow(tmp_path):
    """With SiT's convention even the number of outputs is the same."""
    for saved, current in ((tiny_config(), flow_config(flow=dict(convention="sit"))), (flow_config(), tiny_config())):
        with pytest.raises(CheckpointError, match="diffusion.objective='(flow|noise)', but .* was trained with"):
            check_same_meaning(saved, current, tmp_path)


@pytest.mark.parametrize(
    "section, fields",
    [
        ("flow", dict(times="logit_normal", times_mean=-0.4, times_std=1.2, time_shift="3", base_tokens=64)),
        ("train", dict(learning_rate=1e-5, batch_size=16, ema_decay=0.5)),
        ("model", dict(attention="reference", remat="full", dtype="bfloat16", scan_layers=True)),
        ("sample", dict(sampler="heun", time_shift="auto")),
    ],
)
def test_what_may_change_in_mid_run(section, fields, tmp_path):
    check_same_meaning(flow_config(), flow_config().replaced(section, **fields), tmp_path)
