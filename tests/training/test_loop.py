"""The loop: resumption bit for bit, metrics, non-finite steps, signals, and fine-tuning from another checkpoint."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import network_of, noisy_params, tiny_config, with_train

from ledit_jax.data import make_loader
from ledit_jax.data.latents import LatentMetadata, LatentWriter, write_metadata
from ledit_jax.errors import CheckpointError, OutputError, TrainingStopped
from ledit_jax.models.functional import init_params, make_apply
from ledit_jax.models.tables import resize_table, sincos_table
from ledit_jax.training.init_from import init_from_checkpoint
from ledit_jax.training.loop import Run, train
from ledit_jax.training.step import _accumulate, draw_dilation
from ledit_jax.weights import export_weights, find_checkpoint, load_weights


def leaves(state):
    return [np.asarray(a) for a in jax.tree.leaves(state)]


def assert_same(a, b):
    assert len(leaves(a)) == len(leaves(b))
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def read_metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_resumed_run_equals_uninterrupted_bit_for_bit(tmp_path):
    config = tiny_config()
    whole = train(config, tmp_path / "whole")
    train(with_train(config, num_steps=5), tmp_path / "parts")
    parts = train(config, tmp_path / "parts")
    assert int(parts.step) == 8
    assert_same(whole, parts)
    losses = [[(row["step"], row["loss"]) for row in read_metrics(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == list(range(1, 9))


def test_a_run_depends_on_its_seed(tmp_path):
    first = train(with_train(tiny_config(), num_steps=2), tmp_path / "a")
    other = train(with_train(tiny_config(), num_steps=2, seed=1), tmp_path / "b")
    assert any((x != y).any() for x, y in zip(leaves(first.params), leaves(other.params), strict=True))


def test_training_lowers_the_loss(tmp_path):
    config = tiny_config(train=dict(num_steps=60, learning_rate=3e-3, batch_size=32, checkpoint_every=100))
    train(config, tmp_path)
    losses = [row["mse"] for row in read_metrics(tmp_path)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_metrics_in_json_and_tensorboard_agree(tmp_path):
    config = with_train(tiny_config(), num_steps=4, log_every=2)
    train(config, tmp_path)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [2, 4]
    assert {"loss", "mse", "vb", "grad_norm", "steps_per_sec", "images_per_sec"} <= rows[0].keys()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [e.step for e in events.Scalars("loss")] == [2, 4]
    np.testing.assert_allclose([e.value for e in events.Scalars("loss")], [row["loss"] for row in rows], rtol=1e-6)


def test_metrics_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    config = tiny_config()
    train(with_train(config, num_steps=4), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 99.0}\n{"step": 6, "lo')  # what a kill leaves behind
    train(config, tmp_path)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 9)) and all(row["loss"] < 99 for row in rows)


def test_accumulation_is_the_mean_over_all_parts():
    """On a loss without randomness, the parts' mean gradient is that of the whole batch."""
    weights = jnp.arange(3.0)
    batch = {"x": jax.random.normal(jax.random.key(0), (8, 3)), "condition": jnp.arange(8)}

    def loss(weights, batch, key, dilation):
        per_sample = dilation * jnp.sin(batch["x"] @ weights) * batch["condition"]
        return per_sample.mean(), {"loss": per_sample.mean()}

    grad_fn = jax.grad(loss, has_aux=True)
    key = jax.random.key(1)
    for parts in (2, 4, 8):
        got = _accumulate(grad_fn, parts, weights, batch, key, 2)
        want = grad_fn(weights, batch, key, 2)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


def test_accumulated_training_runs_and_draws_other_noise(tmp_path):
    for parts in (1, 2):
        train(with_train(tiny_config(), accumulation_steps=parts, num_steps=1), tmp_path / str(parts))
    whole, halves = (read_metrics(tmp_path / name)[0] for name in ("1", "2"))
    assert halves["loss"] != whole["loss"] and abs(halves["loss"] - whole["loss"]) < 0.5


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
    config = tiny_config(train=dict(batch_size=1, num_steps=32, checkpoint_every=1) | fields).to_dict()
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


def test_fine_tuning_takes_every_weight_and_reports(tmp_path, caplog):
    config = tiny_config("DiT")
    train(config, tmp_path / "dit")
    source, _, _ = load_weights(tmp_path / "dit")
    with caplog.at_level("INFO", logger="ledit_jax"):
        brief = tiny_config(train=dict(learning_rate=1e-12, num_steps=1))
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


def read_label(record):
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


def test_resuming_with_a_changed_architecture_is_refused(tmp_path):
    config = with_train(tiny_config(), num_steps=1)
    train(config, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=r"model\.scan='b', but .* was trained with 'd'"):
        train(tiny_config(model=dict(scan="b")), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_workdir_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="workdir=.*cannot be written"):
        train(tiny_config(), tmp_path / "file" / "run")


def test_sigterm_saves_and_exits_0_then_the_same_command_finishes_the_run(tmp_path):
    """A real process, a real signal; the result is that of a run nobody touched."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom tiny import tiny_config\nfrom ledit_jax.training.loop import train\n"
        "train(tiny_config(train=dict(num_steps=100, checkpoint_every=1000)), sys.argv[1])\n"
    )
    here = os.path.dirname(os.path.dirname(__file__))
    env = os.environ | {"PYTHONPATH": os.pathsep.join([here, os.path.dirname(here)]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(script), str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=env)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 10:
        assert process.poll() is None, "the run ended before the signal could be sent"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    stopped_at = int(find_checkpoint(tmp_path / "killed").name)
    assert 10 <= stopped_at < 100
    subprocess.run(command, env=env, check=True)
    train(tiny_config(train=dict(num_steps=100, checkpoint_every=1000)), tmp_path / "whole")
    killed, whole = (load_weights(tmp_path / name, "params") for name in ("killed", "whole"))
    assert killed[2] == whole[2] == 100
    assert_same(killed[0], whole[0])
