"""Prompts: from strings and files to conditions, what guidance leads away from, and what is refused."""

import json

import jax
import numpy as np
import pytest
from tiny import tiny_config
from toy_text import TextNetwork, ToyText, text_config, text_params

from ledit_jax.data.captioned import read_coco
from ledit_jax.errors import ConfigError, DataError
from ledit_jax.models.condition import ClassLabels, TextStates
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.prompts import (
    Prompts,
    example_captions,
    find_prompts,
    read_prompts,
    with_empty_caption,
)

TEXT = ToyText()
SPEC = TextStates(TEXT.length, TEXT.width)
WORDS = ["a red disc", "two discs", "a square"]


class Counting(ToyText):
    """Says what it was asked."""

    asked: list

    def __call__(self, prompts):
        self.asked.append(list(prompts))
        return super().__call__(prompts)


def make_counting():
    counting = Counting()
    object.__setattr__(counting, "asked", [])
    return counting


def test_conditions_are_the_encoders_states_in_whatever_order_and_number():
    counting = make_counting()
    prompts = Prompts(SPEC, counting)
    asked = prompts.ask(WORDS)
    condition = asked.take(np.array([2, 0, 0, 4]))
    np.testing.assert_array_equal(condition["states"], TEXT([WORDS[2], WORDS[0], WORDS[0], WORDS[1]]))
    assert condition["given"].all()
    asked.take(np.array([1]))
    assert counting.asked == [WORDS], "encoded again"
    by_states = prompts.ask(list(TEXT(WORDS))).take(np.array([1, 2]))
    np.testing.assert_array_equal(by_states["states"], TEXT(WORDS[1:]))


def test_of_many_prompts_only_some_are_held(monkeypatch):
    monkeypatch.setattr("ledit_jax.sampling.prompts._KEPT", 2)
    counting = make_counting()
    asked = Prompts(SPEC, counting).ask(WORDS)
    assert not counting.asked, "encoded before they are wanted"
    for places in ([0, 1], [2, 1], [0]):
        np.testing.assert_array_equal(asked.take(np.array(places))["states"], TEXT([WORDS[i] for i in places]))
    assert counting.asked == [WORDS[:2], [WORDS[2], WORDS[1]], [WORDS[0]]]


@pytest.mark.parametrize(
    "spec, encoder, values, message",
    [
        (
            ClassLabels(10),
            None,
            ["a dog"],
            r"prompts=\['a dog'\] for a model of classes: give class_labels from 0 to 9",
        ),
        (SPEC, TEXT, [3, 4], r"class_labels=\[3, 4\] for a model that draws from text: give prompts"),
        (SPEC, TEXT, ["a", " \n"], r"prompt 2 of 2 is empty"),
        (SPEC, TEXT, ["a", 3], r"prompt 2 is 3: prompts are texts"),
        (SPEC, None, ["a"] * 9, r"prompts=\['a', 'a', 'a', ...\] need a text encoder's checkpoint: give text_encoder"),
        (SPEC, TEXT, [], r"there are no prompts"),
        (SPEC, TEXT, [np.zeros((4, 8))], r"a prompt's states are \(4, 8\), and this model was trained on \(5, 8\)"),
    ],
    ids=["classes", "labels", "empty", "mixed", "no encoder", "none", "shape"],
)
def test_what_cannot_be_asked_is_one_line(spec, encoder, values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Prompts(spec, encoder).ask(values)
    assert "\n" not in str(caught.value)


def test_files_of_prompts(tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("a red  disc\nein Kürbis\n\n", encoding="utf-8-sig")
    assert read_prompts(file) == find_prompts(None, file) == ["a red disc", "ein Kürbis"]
    assert find_prompts("a", None) == ["a"] and find_prompts(None, None) is None
    file.write_text("a\n\nb\n")
    with pytest.raises(DataError, match=r"p.txt line 2 is empty: write a prompt a line"):
        read_prompts(file)
    file.write_text("\n")
    with pytest.raises(DataError, match=r"p.txt has no prompts"):
        read_prompts(file)
    file.write_bytes(b"\xff\xfea")
    with pytest.raises(DataError, match=r"p.txt is no text in UTF-8"):
        read_prompts(file)
    with pytest.raises(DataError, match=r"nothing.txt cannot be read"):
        read_prompts(tmp_path / "nothing.txt")
    with pytest.raises(ConfigError, match=r"prompt='a' and prompts=p.txt: give one of them"):
        find_prompts("a", "p.txt")
    images = [{"id": 7, "file_name": "b.jpg"}, {"id": 5, "file_name": "a.jpg"}]
    texts = [{"image_id": 5, "caption": "A."}, {"image_id": 7, "caption": "B."}, {"image_id": 7, "caption": "C."}]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": texts}))
    assert read_coco(tmp_path / "captions.json") == {"b.jpg": ["B.", "C."], "a.jpg": ["A."]}
    assert read_prompts(tmp_path / "captions.json") == ["B.", "A."]


def test_the_encoder_must_give_the_models_empty_caption():
    empty = TEXT([""])[0]
    rounded = {"empty_caption": np.asarray(jax.numpy.asarray(empty, "bfloat16"), np.float32)}
    assert with_empty_caption(rounded, TEXT, "toy") is rounded
    converted = with_empty_caption({"empty_caption": np.zeros_like(empty)}, TEXT, "toy")
    np.testing.assert_array_equal(converted["empty_caption"], empty)
    for other in (ToyText(seed=1), ToyText(length=6)):
        with pytest.raises(ConfigError, match=r"text_encoder=here does not give the states .* do not belong together"):
            with_empty_caption({"empty_caption": empty}, other, "here")


def test_examples_are_first_captions_spread_over_the_data():
    source = [{"captions": [f"{i}", "other"], "caption_states": TEXT([f"{i}", "other"])} for i in range(10)]
    values, texts = example_captions(SPEC, source, 4)
    assert texts == ["0", "3", "6", "9"]
    np.testing.assert_array_equal(values, TEXT(texts))
    assert example_captions(TextStates(5, 8, TEXT), source, 20) == ([f"{i}" for i in range(10)],) * 2


@pytest.fixture(scope="module")
def pipeline():
    return LEDiTPipeline(text_config(), text_params(), network=TextNetwork(), text_encoder=TEXT)


def test_the_pipeline_draws_prompts_and_leads_away_from_negative_ones(pipeline):
    images = pipeline(WORDS, cfg_scale=3.0, seed=1)
    assert images.shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(images, pipeline(list(TEXT(WORDS)), cfg_scale=3.0, seed=1))
    assert (images != pipeline(WORDS[::-1], cfg_scale=3.0, seed=1)).any()
    away = pipeline(WORDS, cfg_scale=3.0, seed=1, negative_prompt="a square")
    assert (away[:2] != images[:2]).any()
    np.testing.assert_array_equal(images, pipeline(WORDS, cfg_scale=3.0, seed=1, negative_prompt=""))
    # Led away from what it is told, a sample is the unguided one.
    same, plain = (
        pipeline(["a square"], cfg_scale=3.0, negative_prompt="a square"),
        pipeline(["a square"], cfg_scale=1.0),
    )
    assert np.abs(same.astype(int) - plain).max() <= 1


def test_negative_prompts_are_for_models_of_text_and_for_guidance(pipeline):
    with pytest.raises(ConfigError, match=r"sample.negative_prompt='x' has no effect with sample.cfg_scale=1"):
        pipeline(WORDS, negative_prompt="x", cfg_scale=1.0)
    with pytest.raises(ConfigError, match=r"sample.negative_prompt='x' is for models that draw from text"):
        tiny_config().replaced("sample", negative_prompt="x")
