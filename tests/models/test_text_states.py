"""A caption as a condition: drawn from a record, given by a user, and refused in a line."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ledit_jax.diffusion import drop_condition
from ledit_jax.errors import ConfigError
from ledit_jax.models.condition import TextStates

SPEC = TextStates(3, 4)


def letters(captions):
    """Each letter's code, four times over."""
    codes = [np.frombuffer(caption.encode().ljust(3)[:3], np.uint8) for caption in captions]
    return np.stack(codes).astype(np.float32)[..., None].repeat(4, axis=-1)


class Source:
    empty_caption = np.full((3, 4), 7, np.float16)

    def __getitem__(self, index):
        return {"captions": ["one", "two"]}


def test_one_caption_of_a_record_is_drawn():
    record = {"caption_states": np.arange(5, dtype=np.float16)[:, None, None] * np.ones((3, 4), np.float16)}
    rng = np.random.default_rng(0)
    drawn = [SPEC.from_record(record, rng) for _ in range(50)]
    assert {float(one["states"][0, 0]) for one in drawn} == {0, 1, 2, 3, 4}
    assert all(one["states"].dtype == np.float32 and one["given"] for one in drawn)
    encoding = pickle.loads(pickle.dumps(TextStates(3, 4, letters)))
    assert encoding == TextStates(3, 4, letters) and hash(encoding)
    seen = {encoding.from_record(Source()[0], rng)["states"].tobytes() for _ in range(20)}
    assert seen == {letters([word]).tobytes() for word in ("one", "two")}


def test_prompts_null_and_constants():
    states = SPEC.parse([np.ones((3, 4)), np.zeros((3, 4), np.float16)])
    words = TextStates(3, 4, letters).parse(["ab", ""])
    null = SPEC.null(2)
    for condition in (states, words, null):
        assert jax.tree.map(lambda a: (a.shape, a.dtype), condition) == {
            "states": ((2, 3, 4), np.float32),
            "given": ((2,), bool),
        }
    assert states["given"].all() and not null["given"].any()
    dropped = drop_condition(jax.tree.map(jnp.asarray, states), null, jax.random.key(0), 1.0)
    jax.tree.map(np.testing.assert_array_equal, dropped, null)
    np.testing.assert_array_equal(SPEC.constants(Source())["empty_caption"], Source.empty_caption)
    np.testing.assert_array_equal(TextStates(3, 4, letters).constants(None)["empty_caption"], letters([""])[0])


@pytest.mark.parametrize(
    "values, says",
    [
        ([], "there are no prompts"),
        (["a dog"], "need.*a text encoder's states"),
        ([3], "a prompt's states are 3"),
        ([np.ones((3, 5))], r"are \(3, 5\), and this model was trained on \(3, 4\)"),
    ],
)
def test_what_is_no_prompt(values, says):
    with pytest.raises(ConfigError, match=says):
        SPEC.parse(values)


def test_sources_without_captions():
    TextStates(3, 4, letters).check_source(Source())
    SPEC.check_source(Source())
    with pytest.raises(ConfigError, match="records of the data have none"):
        TextStates(3, 4, letters).check_source([{"label": 1}])
    with pytest.raises(ConfigError, match="the data has no states"):
        SPEC.check_source([{"label": 1}])
    with pytest.raises(ConfigError, match=r"text.length=5 and text.width=4, but.*\(3, 4\)"):
        TextStates(5, 4).check_source(Source())
