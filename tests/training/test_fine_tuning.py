"""Fine-tuning from another checkpoint: what is taken over, what is drawn afresh, and what is refused."""

import dataclasses
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import network_of, noisy_params, tiny_config, with_train
from training.run_results import assert_same

from ledit_jax.data import make_loader
from ledit_jax.errors import CheckpointError
from ledit_jax.models.functional import init_params, make_apply
from ledit_jax.models.tables import resize_table, sincos_table
from ledit_jax.training.init_from import init_from_checkpoint
from ledit_jax.training.loop import Run, train
from ledit_jax.training.step import draw_dilation
from ledit_jax.weights import export_weights, load_weights


def test_fine_tuning_takes_every_weight_and_reports(tmp_path, caplog):
    config = tiny_config("DiT")
    train(config, tmp_path / "dit")
    source, _, _ = load_weights(tmp_path / "dit")
    with caplog.at_level("INFO", logger="ledit_jax"):
        brief = tiny_config(train=dict(learning_rate=1e-12, num_steps=1, dilation_probability=0.0))
        tuned = train(brief, tmp_path / "ft", init_from=str(tmp_path / "dit"))
    for path, value in jax.tree_util.tree_leaves_with_path(source):
        node = tuned.params
        for key in path:
            node = node[key.key]
        np.testing.assert_allclose(node, value, atol=1e-8)
    assert "newly initialised: conv/kernel (3, 3, 16, 16)" in caplog.text
    assert "dropped: the sin/cos positional table" in caplog.text


def draws(config, workdir, init_from=None):
    """What a run's randomness is made of: its first batch, its key and its first dilations."""
    run = Run(config, workdir, init_from=init_from)
    batch = np.asarray(run.next_batch()["x"])
    run.loader.close()
    dilations = [draw_dilation(config.train, run.seed, step) for step in range(40)]
    return batch, jax.random.key_data(run.key), np.array(dilations)


def test_fine_tuning_with_the_same_seed_draws_afresh(tmp_path):
    """Otherwise the second run of three would see the first one's batches, times and noise, and the third those too."""
    config = with_train(tiny_config(), num_steps=2)
    train(config, tmp_path / "a")
    train(config, tmp_path / "b", init_from=str(tmp_path / "a"))
    runs = [draws(config, tmp_path / f"new-{before}", before and str(tmp_path / before)) for before in ("", "a", "b")]
    for one, other in itertools.combinations(runs, 2):
        assert all((x != y).any() for x, y in zip(one, other, strict=True))
    again = draws(config, tmp_path / "arm", str(tmp_path / "a"))
    for x, y in zip(again, runs[1], strict=True):  # the arms of a study see the same
        np.testing.assert_array_equal(x, y)
    from_scratch = make_loader(config.data, config.autoencoder, condition=read_label, batch_size=8, seed=0)
    np.testing.assert_array_equal(runs[0][0], next(from_scratch)["x"])
    np.testing.assert_array_equal(runs[0][1], jax.random.key_data(jax.random.key(0)))
    from_scratch.close()


def read_label(record, rng):
    return record["label"]


def test_a_resumed_fine_tuning_run_equals_an_uninterrupted_one(tmp_path):
    """The second start may leave `init_from` out, and the base may be gone."""
    config = tiny_config()
    train(with_train(config, num_steps=2), tmp_path / "base")
    base = str(tmp_path / "base")
    whole = train(config, tmp_path / "whole", init_from=base)
    train(with_train(config, num_steps=5), tmp_path / "parts", init_from=base)
    shutil.rmtree(base)
    assert_same(whole, train(config, tmp_path / "parts"))


def test_fine_tuning_from_another_shape_names_both_shapes(tmp_path):
    train(with_train(tiny_config(), num_steps=1), tmp_path / "a")
    wider = tiny_config(model=dict(width=32))
    with pytest.raises(CheckpointError, match=r"patch_embed/kernel \(4, 16\) -> \(4, 32\)"):
        train(wider, tmp_path / "b", init_from=str(tmp_path / "a"))


@pytest.mark.parametrize("name, value", [("num_heads", 4), ("timestep_frequency_shift", 1.0)])
def test_fine_tuning_with_another_meaning_of_the_weights_is_refused(tmp_path, name, value):
    config = tiny_config()
    export_weights(tmp_path / "c", init_params(network_of(config), jax.random.key(0)), config, step=1)
    with pytest.raises(CheckpointError, match=rf"model\.{name}={getattr(config.model, name)}, and this config has"):
        init_from_checkpoint(tmp_path / "c", tiny_config(model={name: value}), jax.random.key(0))


def test_fine_tuning_at_another_size_resizes_a_learned_table(tmp_path):
    config = tiny_config("Learnable")
    params = init_params(network_of(config), jax.random.key(0))
    export_weights(tmp_path / "c", params, config, step=1)
    larger = dataclasses.replace(config, data=dataclasses.replace(config.data, image_height=16, image_width=12))
    tuned, report = init_from_checkpoint(tmp_path / "c", larger, jax.random.key(1))
    np.testing.assert_array_equal(tuned["position_table"], resize_table(params["position_table"], (8, 6)))
    assert "resized: position_table (4, 4, 16) -> (8, 6, 16)" in str(report)


@pytest.mark.parametrize("size", [8, 12])
def test_a_learned_table_starts_as_the_table_of_a_dit(tmp_path, size):
    """Step 0 is then the DiT itself, and not the DiT without its positions and with noise in their place."""
    config, learnable = tiny_config("DiT"), tiny_config("Learnable")
    export_weights(tmp_path / "c", noisy_params(config), config, step=1)
    data = dataclasses.replace(learnable.data, image_height=size, image_width=size)
    learnable = dataclasses.replace(learnable, data=data)
    tuned, report = init_from_checkpoint(tmp_path / "c", learnable, jax.random.key(1))
    shape = (size // 2, size // 2, 16)
    assert f"initialised: position_table {shape} from the sin/cos positional table" in str(report)
    assert "dropped" not in str(report) and report.initialised == ()
    if size == 8:
        inputs = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.arange(2), jnp.array([3, 10])
        dit = make_apply(network_of(config))(noisy_params(config), *inputs)
        np.testing.assert_array_equal(make_apply(network_of(learnable))(tuned, *inputs), dit)
    else:
        table = jnp.asarray(sincos_table(4, 4, 16))
        np.testing.assert_array_equal(tuned["position_table"], resize_table(table, (6, 6)))
