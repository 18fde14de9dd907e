"""The loop: resumption bit for bit, metrics, accumulation, and what it refuses before it starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_config, with_train
from training.run_results import assert_same, leaves, read_metrics

from ledit_jax.errors import CheckpointError, OutputError
from ledit_jax.training.loop import train
from ledit_jax.training.step import _accumulate


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
    config = tiny_config(
        train=dict(num_steps=60, learning_rate=3e-3, batch_size=32, checkpoint_every=100, dilation_probability=0.0)
    )
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
