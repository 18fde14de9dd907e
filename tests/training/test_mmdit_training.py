"""A small LEMMDiT through the real step, loop, checkpoint and pipeline, on captions of a toy source."""

import json

import jax
import numpy as np
import pytest
from tiny import Captioned, tiny_mmdit, with_train

from ledit_jax.errors import CheckpointError
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.training.init_from import init_from_checkpoint
from ledit_jax.training.loop import train
from ledit_jax.weights import load_weights

CONFIG = tiny_mmdit(train=dict(num_steps=6, checkpoint_every=3, learning_rate=1e-2, label_dropout=0.3))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, train(CONFIG, folder, source=Captioned(CONFIG))


def test_trains_and_resumes_bit_for_bit(run, tmp_path):
    folder, whole = run
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 6 and np.isfinite(losses).all() and losses[-1] < losses[0]
    train(with_train(CONFIG, num_steps=3), tmp_path, source=Captioned(CONFIG))
    parts = train(CONFIG, tmp_path, source=Captioned(CONFIG))
    jax.tree.map(np.testing.assert_array_equal, (whole.params, whole.ema), (parts.params, parts.ema))


def test_samples_what_is_asked_for_at_another_size(run):
    params, config, step = load_weights(run[0])
    assert (config, step) == (CONFIG, 6)
    pipeline, states = LEDiTPipeline(config, params), Captioned(CONFIG)._states
    asked = [states[1][0], states[7][1]]
    first, again = (pipeline(asked, 8, 12, seed=4) for _ in range(2))
    assert first.shape == (2, 8, 12, 1)
    np.testing.assert_array_equal(first, again)
    assert (first != pipeline(asked[::-1], 8, 12, seed=4)).any(), "what is asked for changes nothing"


def test_its_weights_start_another_of_the_family(run):
    """Of MMDiT's own positions nothing is a parameter; LEMMDiT's convolution and norm are new, or left behind."""
    for family, model, lost, new in (
        ("MMDiT", {}, ("conv/bias", "conv/kernel"), ()),
        ("LEMMDiT", {"post_norm": True}, (), ("conv_norm/bias (16,)", "conv_norm/scale (16,)")),
    ):
        _, report = init_from_checkpoint(run[0], tiny_mmdit(family, model=model), jax.random.key(0))
        assert report.dropped == lost and report.initialised == new
        assert {"empty_caption", "text_embed/kernel", "last_block/text/attn/qkv/kernel"} <= set(report.loaded)


def test_other_text_is_refused(run):
    wider = tiny_mmdit().replaced("text", width=12)
    with pytest.raises(CheckpointError, match=r"text.width=8, and this config has 12: set it to 8"):
        init_from_checkpoint(run[0], wider, jax.random.key(0))
    longer = CONFIG.replaced("text", length=4)
    with pytest.raises(CheckpointError, match=r"text.length=4, but .* was trained with 3"):
        train(longer, run[0], source=Captioned(longer))
