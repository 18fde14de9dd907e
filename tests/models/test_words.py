"""The encoder of a few words: exact, orthogonal, and clear about what it does not know."""

import logging
import pickle

import numpy as np
import pytest

from ledit_jax.config import TextConfig
from ledit_jax.data.caption_states import TextEncoder
from ledit_jax.errors import ConfigError
from ledit_jax.models.condition import ClassLabels, TextStates
from ledit_jax.models.words import WORDS, Words
from ledit_jax.weights import make_text_encoder


def test_states_are_sums_of_orthogonal_vectors_of_word_and_place():
    encode = Words(length=4, width=64)
    states = encode(["a red disc", "a disc red", ""]).astype(np.float64)
    assert states.shape == (3, 4, 64)
    products = np.einsum("aie,bje->aibj", states, states) / 64
    words = [["a", "red", "disc", ""], ["a", "disc", "red", ""], [""] * 4]
    for a, i, b, j in np.ndindex(products.shape):
        np.testing.assert_allclose(products[a, i, b, j], ((words[a][i] == words[b][j]) + (i == j)) / 2, atol=1e-6)


def test_every_word_and_place_has_a_vector_of_its_own():
    encode = Words()
    states = encode([*WORDS, ""])[:, 0]
    assert np.linalg.matrix_rank(states) == len(WORDS) + 1
    assert len(np.unique(encode([""])[0], axis=0)) == encode.length


def test_case_and_stops_do_not_matter():
    np.testing.assert_array_equal(
        Words()(["A red disc, above a blue square."]), Words()(["a red disc above a blue square"])
    )


def test_unknown_words_are_named_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match="does not know 'disk': did you mean disc"):
        Words()(["a red disc", "a red disk"])


def test_a_long_prompt_is_cut_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        states = Words(length=3, width=32)(["a red disc above a blue square"])
    np.testing.assert_array_equal(states, Words(length=3, width=32)(["a red disc"]))
    assert "more than 3 words: the last 4 are left out" in caplog.text


def test_it_travels_as_a_value_and_tells_itself_apart():
    encode = Words()
    again = pickle.loads(pickle.dumps(encode))
    assert again == encode and hash(again) == hash(encode) and again.fingerprint == encode.fingerprint
    assert Words(length=11).fingerprint != encode.fingerprint and isinstance(encode, TextEncoder)
    assert make_text_encoder(TextConfig("words", length=11, width=64)) == Words(length=11)


@pytest.mark.parametrize(("length", "width"), [(12, 32), (12, 96), (0, 64), (40, 64)])
def test_sizes_without_room_are_refused(length, width):
    with pytest.raises(ConfigError, match=f"text.width={width} and text.length={length}"):
        Words(length, width)


def test_a_class_model_refuses_captions_and_a_text_model_draws_one_of_them():
    record, encode = {"captions": ["a red disc", "one red disc"]}, Words()
    with pytest.raises(ConfigError, match="told classes, and the records of the data have captions"):
        ClassLabels(10).check_source([record])
    spec = TextStates(12, 64, encode)
    rng = np.random.default_rng(0)
    drawn = np.stack([spec.from_record(record, rng)["states"] for _ in range(20)])
    np.testing.assert_array_equal(np.unique(drawn, axis=0), np.unique(encode(record["captions"]), axis=0))
