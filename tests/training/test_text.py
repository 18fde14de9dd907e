"""Training on captions' states: the empty caption is set once, and kept; captions of another encoder are refused."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import with_train
from toy_text import TextNetwork, ToyText, text_config, text_params
from training.run_results import assert_same

from ledit_jax.errors import ConfigError
from ledit_jax.training.loop import train
from ledit_jax.weights import export_weights


@dataclasses.dataclass
class Captioned:
    """Grey images 8x8, each with two captions, as one encoder sees them."""

    encoder: ToyText = dataclasses.field(default_factory=ToyText)
    num_classes = 1

    @property
    def empty_caption(self):
        return self.encoder([""])[0]

    def __len__(self):
        return 24

    def __getitem__(self, index):
        if not 0 <= index < 24:
            raise IndexError(index)
        captions = [f"{index} light", f"{index} bright"]
        image = np.full((8, 8, 1), 10 * index, np.uint8)
        return {"image": image, "label": 0, "captions": captions, "caption_states": self.encoder(captions)}


CONFIG = text_config(num_steps=6, checkpoint_every=3)
GIVEN = dict(network=TextNetwork(), source=Captioned())
OTHER = GIVEN | {"source": Captioned(ToyText(seed=1))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    return folder, train(CONFIG, folder, **GIVEN)


def test_the_empty_caption_is_the_datas_from_the_first_step_to_the_last(whole):
    expected = ToyText()([""])[0]
    for params in (whole[1].params, whole[1].ema):
        np.testing.assert_array_equal(params["empty_caption"], expected)
    assert (np.asarray(whole[1].params["text"]["bias"]) != 0).any(), "nothing was trained"


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(whole, tmp_path):
    train(with_train(CONFIG, num_steps=3), tmp_path, **GIVEN)
    assert_same(train(CONFIG, tmp_path, **GIVEN), whole[1])


def test_captions_of_another_encoder_are_refused(whole, tmp_path):
    folder, _ = whole
    for kept in (dict(workdir=folder), dict(workdir=tmp_path / "new", init_from=str(folder))):
        with pytest.raises(ConfigError, match=r"other states of the empty caption \(empty_caption\) than the data"):
            train(with_train(CONFIG, num_steps=7), **kept, **OTHER)
    with pytest.raises(ConfigError, match=r"model.network=mmdit is told captions, and the data has no states of any"):
        train(CONFIG, tmp_path / "new", network=TextNetwork())


def test_init_from_keeps_what_the_checkpoint_knows_and_sets_what_it_does_not(tmp_path):
    params = text_params()
    rounded = jnp.asarray(jnp.asarray(params["empty_caption"], jnp.bfloat16), jnp.float32)
    for name, empty, expected in (("kept", rounded, rounded), ("set", rounded * 0, params["empty_caption"])):
        export_weights(tmp_path / name, params | {"empty_caption": empty}, CONFIG, step=1)
        run = tmp_path / f"{name}-run"
        state = train(with_train(CONFIG, num_steps=1), run, init_from=str(tmp_path / name), **GIVEN)
        np.testing.assert_array_equal(state.params["empty_caption"], expected)
