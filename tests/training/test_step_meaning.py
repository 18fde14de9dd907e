"""What a training step does: against float64 PyTorch over several steps, and how often it drops labels and dilates."""

import copy
import dataclasses

import jax
import numpy as np
import pytest
from oracles import ledit_params, torch_dit
from oracles.torch_training import TorchTraining
from tiny import begin_training, network_of, tiny_config, with_train

from ledit_jax.models.functional import abstract_params, init_params
from ledit_jax.training.optimizer import learning_rate_schedule
from ledit_jax.training.step import draw_dilation

RATES = (0.005, 0.01, 0.01, 0.005)
"""Of four steps with a warm-up of two and a decay of two; written by hand."""
CONFIG = tiny_config(
    train=dict(
        num_steps=4,
        learning_rate=0.01,
        warmup_steps=2,
        decay_steps=2,
        weight_decay=0.1,
        ema_decay=0.9,
        label_dropout=0.3,
        grad_clip=4.0,
    )
)
DILATION = 2
SHAPE = (8, 8, 8, 1)


def documented_draws(key, step):
    """Timesteps, noise and which labels drop, as a run has drawn them since the first version."""
    t_key, noise_key, drop_key = jax.random.split(jax.random.fold_in(key, step), 3)
    t = jax.random.randint(t_key, SHAPE[:1], 0, 1000)
    drop = jax.random.bernoulli(drop_key, CONFIG.train.label_dropout, SHAPE[:1])
    return np.asarray(t), np.asarray(jax.random.normal(noise_key, SHAPE)), np.asarray(drop)


def assert_tree_is(got, network, like):
    """Within 0.2% of what one step moves a parameter by.

    The biases of keys are left out: they add the same to all logits of a query, so that their gradient is zero but for
    rounding, of which Adam makes whole steps.
    """
    want = ledit_params.to_ledit_tree(dict(network.named_parameters()), like)
    for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        ours, theirs = np.asarray(ours), np.array(theirs)
        name = jax.tree_util.keystr(path)
        if "qkv" in name and "bias" in name:
            width = CONFIG.model.width
            ours, theirs = (np.delete(a, np.s_[width : 2 * width], axis=-1) for a in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=2e-3 * CONFIG.train.learning_rate, err_msg=name)


def test_steps_are_those_of_pytorch_in_float64():
    """Losses, gradient norm, parameters and moving average, with a limit that clips some of the gradients only."""
    peer, like, key = (
        torch_dit.torch_peer(CONFIG.model, in_channels=1),
        abstract_params(network_of(CONFIG)),
        jax.random.key(3),
    )
    state, step = begin_training(CONFIG, ledit_params.to_ledit_params(peer, like))
    free = TorchTraining(copy.deepcopy(peer), with_train(CONFIG, grad_clip=0.0).train)
    theirs, rng, norms = TorchTraining(peer, CONFIG.train), np.random.default_rng(0), []
    for index, rate in enumerate(RATES):
        x, labels = rng.uniform(-1, 1, SHAPE).astype(np.float32), rng.integers(0, 10, SHAPE[0])
        t, noise, drop = documented_draws(key, index)
        assert drop.any() and not drop.all()
        arguments = x.transpose(0, 3, 1, 2), np.where(drop, 10, labels), t, noise.transpose(0, 3, 1, 2), rate, DILATION
        want, _ = theirs.step(*arguments), free.step(*arguments)
        state, metrics = step(state, x, labels, key, DILATION)
        for name, value in dataclasses.asdict(want).items():
            assert float(metrics[name]) == pytest.approx(value, rel=2e-5), (index, name)
        assert_tree_is(state.params, theirs.network, like)
        assert_tree_is(state.ema, theirs.ema, like)
        norms.append(want.grad_norm)
    assert int(state.step) == len(RATES)
    assert min(norms) < CONFIG.train.grad_clip < max(norms)
    for other in (free.network, theirs.ema):  # neither clipping nor averaging is idle here
        pairs = zip(theirs.network.parameters(), other.parameters(), strict=True)
        assert max((a - b).abs().max().item() for a, b in pairs) > 0.1 * CONFIG.train.learning_rate


@pytest.mark.parametrize(
    "settings, rates",
    [
        (dict(num_steps=3), [0.8, 0.8, 0.8]),
        (dict(num_steps=7, warmup_steps=4), [0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8]),
        (dict(num_steps=3, warmup_steps=1), [0.8, 0.8, 0.8]),
        (dict(num_steps=6, decay_steps=4), [0.8, 0.8, 0.8, 0.6, 0.4, 0.2]),
        (dict(num_steps=9, warmup_steps=2, decay_steps=4), [0.4, 0.8, 0.8, 0.8, 0.8, 0.8, 0.6, 0.4, 0.2]),
    ],
    ids=["constant", "warm-up", "warm-up of one", "decay", "both"],
)
def test_learning_rates(settings, rates):
    """The rate of each step, the first being number 0; after the last one a decay has reached zero."""
    schedule = learning_rate_schedule(
        with_train(CONFIG, **{"warmup_steps": 0, "decay_steps": 0} | settings, learning_rate=0.8).train
    )
    np.testing.assert_allclose([schedule(step) for step in range(len(rates))], rates, rtol=1e-6)
    if "decay_steps" in settings:
        assert schedule(len(rates)) == pytest.approx(0, abs=1e-7)


def test_labels_are_dropped_at_the_configured_rate():
    """Counted in the loss of the real step: the network answers 1000 for the null label, and 0 for the others."""
    batch, steps, answer = 2048, 4, 1000.0
    base = tiny_config("NoPE", model=dict(depth=1))
    config = with_train(base, batch_size=batch, label_dropout=0.3)
    params = jax.tree.map(np.zeros_like, init_params(network_of(config), jax.random.key(0)))
    params["label_embed"]["embedding"][10, 0] = 50.0  # SiLU keeps it
    params["final_layer"]["adaln"]["kernel"][0, 0] = answer / 50.0  # the shift of the first feature
    params["final_layer"]["linear"]["kernel"][0] = np.tile([1.0, 0.0], 4)  # to eps, not to v, of each of four pixels
    state, step = begin_training(config, params)
    labels, key, dropped = np.arange(batch) % 10, jax.random.key(0), []
    for number in range(steps):
        start = dataclasses.replace(state, step=state.step + number)
        _, metrics = step(start, np.zeros((batch, *SHAPE[1:])), labels, key)
        dropped.append(round(float(metrics["mse"]) / answer**2 * batch))
    draws = steps * batch
    assert abs(sum(dropped) - 0.3 * draws) < 4 * np.sqrt(draws * 0.3 * 0.7), dropped
    assert len(set(dropped)) > 1  # each step draws anew


def test_dilations_are_drawn_at_the_configured_rates():
    train = dataclasses.replace(CONFIG.train, dilation_probability=0.1, dilation_rates=(2, 3))
    count, drawn = 20_000, {}
    for seed in (0, 1):
        drawn[seed] = np.array([draw_dilation(train, seed, step) for step in range(count)])
        for rate, share in ((1, 0.9), (2, 0.05), (3, 0.05)):
            assert abs((drawn[seed] == rate).sum() - share * count) < 4 * np.sqrt(count * share * (1 - share))
    both = np.mean((drawn[0] > 1) & (drawn[1] > 1))
    assert both < 0.02  # 0.01 by chance, 0.1 if the seed did not count
    for probability in (0.0, 1.0):
        sure = dataclasses.replace(train, dilation_probability=probability)
        assert {draw_dilation(sure, 0, step) > 1 for step in range(100)} == {probability == 1.0}
