"""Steps that are not finite: judged before they are applied and saved, and counted from each start."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny import begin_training, network_of, tiny_config, with_train
from training.run_results import leaves

from ledit_jax.data.latent_metadata import LatentMetadata
from ledit_jax.data.latents import LatentWriter, write_metadata
from ledit_jax.diffusion import make_process
from ledit_jax.diffusion.gaussian import GaussianProcess
from ledit_jax.errors import CheckpointError, ConfigError, TrainingStopped
from ledit_jax.models import init_params
from ledit_jax.sampling.loading import load_model
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.training.init_from import init_from_checkpoint
from ledit_jax.training.loop import train
from ledit_jax.weights import export_weights, find_checkpoint, load_weights

STILL = tiny_config(train=dict(dilation_probability=0.0))
"""One program of the step, where two dilations would be two."""


class Broken(GaussianProcess):
    """A process whose loss is NaN."""

    def training_losses(self, *arguments):
        return {name: loss * np.nan for name, loss in super().training_losses(*arguments).items()}


def finite(tree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def test_an_update_that_would_make_weights_infinite_is_not_applied():
    config = with_train(tiny_config(), learning_rate=float("inf"))  # which `validate` has not seen
    params = init_params(network_of(config), jax.random.key(0))
    state, step = begin_training(config, params)
    x, labels = np.random.default_rng(0).normal(size=(8, 8, 8, 1)), np.arange(8)
    state, metrics = step(state, x, labels, jax.random.key(1))
    assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"])
    assert int(state.nonfinite_steps) == 1 and finite((state.params, state.ema, state.opt_state))
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_step_that_is_not_logged_makes_the_same_weights_without_their_norms():
    config = tiny_config()
    begin, step = begin_training(config, init_params(network_of(config), jax.random.key(0)))
    x, labels = np.random.default_rng(0).normal(size=(8, 8, 8, 1)), np.arange(8)
    logged, quiet = (step(begin, x, labels, jax.random.key(1), 1, np.bool_(is_logged)) for is_logged in (True, False))
    assert np.isnan(quiet[1]["ema_drift"]) and logged[1]["ema_drift"] > 0
    for one, other in zip(jax.tree.leaves(logged[0]), jax.tree.leaves(quiet[0]), strict=True):
        np.testing.assert_array_equal(one, other)
    dropped, _ = step(begin, x * np.nan, labels, jax.random.key(1), 1, np.bool_(False))
    assert int(dropped.nonfinite_steps) == 1 and finite(dropped.params), "a gradient is judged all the same"


def test_a_step_that_falls_on_a_checkpoint_step_is_judged_before_it_is_saved(tmp_path):
    config = with_train(STILL, learning_rate=float("inf"), checkpoint_every=1)
    with pytest.raises(TrainingStopped, match="step 1: .*weights that are not finite.*checkpoint: none was written"):
        train(config, tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_last_good_checkpoint_is_one_whose_next_step_was_finite(tmp_path):
    """At a rate of 1e16 the first update is finite, and nothing after it is."""
    train(with_train(STILL, num_steps=3, checkpoint_every=1, keep_last=1), tmp_path)
    config = with_train(STILL, learning_rate=1e16, checkpoint_every=1, keep_last=1)
    with pytest.raises(TrainingStopped, match="step 5: ") as stop:
        train(config, tmp_path)
    assert str(stop.value).endswith(f"Last good checkpoint: {tmp_path / 'checkpoints' / '3'}")
    assert finite(load_weights(tmp_path / "checkpoints" / "3")[0])
    # And the counter of that stop does not end the next start.
    (tmp_path / "checkpoints" / "4").rename(tmp_path / "later")
    assert int(train(with_train(STILL, num_steps=5), tmp_path).step) == 5


def test_steps_are_counted_since_the_start(tmp_path):
    """A checkpoint that has counted more of them than are tolerated, as earlier versions wrote it, goes on."""
    config = with_train(STILL, num_steps=2, max_nonfinite_steps=5)
    assert int(train(config, tmp_path, process=Broken(**vars(make_process(config)))).nonfinite_steps) == 2
    state = train(with_train(STILL, num_steps=4, max_nonfinite_steps=0), tmp_path)
    assert (int(state.step), int(state.nonfinite_steps)) == (4, 2)
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["nonfinite_steps"] for row in rows] == [1, 2, 2, 2]


@pytest.fixture
def latents_with_nan(tmp_path):
    """Sixteen latents, one of them not a number."""
    folder = tmp_path / "latents"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with LatentWriter(folder, (4, 4, 4)) as writer:
        for index in range(16):
            mean = rng.standard_normal((4, 4, 4), np.float32)
            if index == 9:
                mean[:] = np.nan
            logvar = np.zeros((4, 4, 4), np.float32)
            writer.write(
                {"mean": mean, "logvar": logvar, "mean_flip": mean, "logvar_flip": logvar, "label": index % 10}
            )
    metadata = LatentMetadata("test", 0.18215, 32, 32, 8, 4, "test", 10)
    write_metadata(folder, metadata)
    return folder


def latents_config(folder, **fields):
    config = with_train(STILL, **(dict(batch_size=1, num_steps=32, checkpoint_every=1) | fields)).to_dict()
    config["data"] |= dict(source="latents", path=str(folder), image_height=32, image_width=32, image_channels=3)
    config["autoencoder"] |= dict(kind="sd")
    return type(tiny_config()).from_dict(config)


def test_nonfinite_loss_stops_the_run_and_leaves_the_last_checkpoint_intact(tmp_path, latents_with_nan):
    with pytest.raises(TrainingStopped, match=r"step \d+: loss nan") as stop:
        train(latents_config(latents_with_nan), tmp_path / "run")
    step = int(str(stop.value).split("step ")[1].split(":")[0])
    folder = str(stop.value).rpartition("Last good checkpoint: ")[2]
    params, _, saved = load_weights(folder)
    assert saved == step - 2 and all(np.isfinite(a).all() for a in leaves(params))


def test_tolerated_nonfinite_steps_change_nothing_but_the_count(tmp_path, latents_with_nan):
    state = train(latents_config(latents_with_nan, num_steps=16, max_nonfinite_steps=1), tmp_path / "run")
    assert int(state.nonfinite_steps) == 1 and int(state.step) == 16
    assert all(np.isfinite(a).all() for a in leaves(state))


@pytest.fixture(scope="module")
def nan_weights(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("nan") / "c", tiny_config()
    params = init_params(network_of(config), jax.random.key(0))
    params["conv"]["kernel"] = params["conv"]["kernel"].at[0, 0, 0, 0].set(np.nan)
    export_weights(folder, params, config, step=1)
    return folder


def test_weights_that_are_not_finite_are_refused_by_name(nan_weights):
    for load in (
        LEDiTPipeline.from_checkpoint,
        load_model,
        lambda path: init_from_checkpoint(path, tiny_config(), jax.random.key(0)),
    ):
        with pytest.raises(CheckpointError, match=r"conv.*kernel.* not finite") as error:
            load(nan_weights)
        assert str(find_checkpoint(nan_weights)) in str(error.value)


@pytest.mark.parametrize(
    "section, name, value",
    [
        ("train", "learning_rate", float("inf")),
        ("train", "learning_rate", 1e38),
        ("train", "learning_rate", 11.0),
        ("train", "weight_decay", float("nan")),
        ("train", "grad_clip", float("inf")),
        ("sample", "cfg_scale", float("nan")),
        ("sample", "cfg_scale", float("-inf")),
        ("sample", "cfg_interval", (0.0, float("nan"))),
        ("model", "norm_eps", float("inf")),
        ("autoencoder", "scale", float("nan")),
        ("diffusion", "beta_end", float("nan")),
    ],
)
def test_settings_that_are_not_finite_are_refused(section, name, value):
    with pytest.raises(ConfigError, match=rf"{section}\.{name}="):
        tiny_config().replaced(section, **{name: value})


def test_guidance_that_is_not_finite_is_refused_when_sampling():
    config = tiny_config()
    pipeline = LEDiTPipeline(config, init_params(network_of(config), jax.random.key(0)))
    with pytest.raises(ConfigError, match=r"sample\.cfg_scale=nan"):
        pipeline([1], cfg_scale=float("nan"))
    with pytest.raises(ConfigError, match=r"sample\.cfg_scale=inf"):
        pipeline([1], options=dataclasses.replace(config.sample, cfg_scale=float("inf")))
