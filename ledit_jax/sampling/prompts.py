"""What images are asked for: classes, or prompts that a text encoder turns into states, a batch at a time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, PyTree

from ledit_jax.data.caption_states import TextEncoder
from ledit_jax.data.captioned import read_coco
from ledit_jax.data.source import Source, UnreadableRecord
from ledit_jax.errors import ConfigError, DataError
from ledit_jax.files import local_copy
from ledit_jax.models import Params
from ledit_jax.models.condition import EMPTY_CAPTION, ClassLabels, ConditionSpec, TextStates, are_same_states

_KEPT = 256
"""Prompts whose states stay in memory: 236 KB each, of CLIP."""


class Prompts:
    """How a network takes what it is asked for: as it is, or texts by a text encoder first."""

    def __init__(self, spec: ConditionSpec, encoder: TextEncoder | None = None):
        """encoder: needed for texts, unless the network's condition brings its own."""
        self.spec = spec
        self.encoder = encoder or getattr(spec, "encode", None)
        self._states: dict[str, np.ndarray] = {}

    @property
    def are_text(self) -> bool:
        """Whether the network draws from captions."""
        return isinstance(self.spec, TextStates)

    def ask(self, values: Sequence[Any]) -> "Asked":
        """values: one for each image. Raises ConfigError for what cannot be."""
        if isinstance(values, (str, Mapping)) or not isinstance(values, (Sequence, np.ndarray, jax.Array)):
            raise ConfigError(f"condition={values!r:.60} must be a list: a class, or a prompt, for each image")
        has_text = any(isinstance(value, str) for value in values)
        if has_text and isinstance(self.spec, ClassLabels):
            last = self.spec.num_classes - 1
            raise ConfigError(f"prompts={_shown(values)} for a model of classes: give class_labels from 0 to {last}")
        if not self.are_text:
            return Asked(values, self.spec.parse(values))
        if has_text:
            check_prompts(values)
            if self.encoder is None:
                raise ConfigError(
                    f"prompts={_shown(values)} need a text encoder's checkpoint: give text_encoder, or name one in "
                    "text.checkpoint"
                )
            if len(set(values)) <= _KEPT:  # what it says of them, it says now
                self.states(values)
            return Asked(values, self)
        if any(np.ndim(value) == 0 for value in values):
            raise ConfigError(f"class_labels={_shown(values)} for a model that draws from text: give prompts")
        return Asked(values, self.spec.parse(values))

    def states(self, prompts: Sequence[str]) -> list[Float32[np.ndarray, "S E"]]:
        """The states of each prompt."""
        wanted = list(dict.fromkeys(prompts))
        missing = [prompt for prompt in wanted if prompt not in self._states]
        if len(self._states) + len(missing) > _KEPT:
            self._states, missing = {}, wanted
        if missing:
            self._states |= zip(missing, self.encoder(missing), strict=True)
        return [self._states[prompt] for prompt in prompts]

    def null(self, negative_prompt: str, batch_size: int) -> PyTree:
        """What guidance leads away from: the network's null condition, or that of a prompt where it is not empty."""
        if not negative_prompt.strip():
            return self.spec.null(batch_size)
        return self.ask([negative_prompt]).take(np.zeros(batch_size, int))


class Asked:
    """What each image is to show. Of texts, conditions are made when they are wanted: states take far more room."""

    def __init__(self, values: Sequence[Any], how: "PyTree[np.ndarray] | Prompts"):
        """how: the conditions of all values, or what makes them of texts."""
        self._values, self._how = values, how

    def __len__(self) -> int:
        return len(self._values)

    def take(self, places: np.ndarray) -> PyTree[np.ndarray]:
        """The condition of the values at these places, counted on from the first again after the last."""
        places = places % len(self)
        if isinstance(self._how, Prompts):
            return self._how.spec.parse(self._how.states([self._values[place] for place in places]))
        return jax.tree.map(lambda values: values[places], self._how)


def check_prompts(prompts: Sequence[Any]) -> None:
    """Raises ConfigError unless all of them are texts, and none is empty."""
    for number, prompt in enumerate(prompts, start=1):
        if not isinstance(prompt, str):
            raise ConfigError(f"prompt {number} is {prompt!r:.60}: prompts are texts, all of them")
        if not prompt.strip():
            raise ConfigError(f"prompt {number} of {len(prompts)} is empty: say what the image should show")


def read_prompts(path: str | Path) -> list[str]:
    """The prompts of a text file in UTF-8, one a line; of COCO's JSON of captions, the first of each image.

    Raises DataError for a file that cannot be read, is empty, or has an empty line.
    """
    path = Path(path)
    if path.suffix == ".json":
        return [captions[0] for captions in read_coco(path, "prompts").values()]
    try:
        lines = [" ".join(line.split()) for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): check the place") from error
    except ValueError as error:
        raise DataError(f"{path} is no text in UTF-8 ({error}): save it in that encoding") from error
    if not lines:
        raise DataError(f"{path} has no prompts: write one a line")
    if "" in lines:
        raise DataError(f"{path} line {lines.index('') + 1} is empty: write a prompt a line, with no lines between")
    return lines


def find_prompts(prompt: str | None, prompts: str | Path | None) -> list[str] | None:
    """The one prompt, or those of a file, see `read_prompts`; None for neither. Raises ConfigError for both."""
    if prompt is not None and prompts is not None:
        raise ConfigError(f"prompt={prompt!r:.60} and prompts={prompts}: give one of them")
    if prompts is not None:
        return read_prompts(local_copy(str(prompts)))
    return None if prompt is None else [prompt]


def example_captions(spec: TextStates, source: Source, count: int) -> tuple[list[Any], list[str]]:
    """(what a pipeline takes, texts) of the first captions of up to `count` records, spread over a run's data.

    For its sample grids: the data's own captions are such as the model learns, and with states they need no encoder.
    """
    values, texts = [], []
    for index in range(0, len(source), -(-len(source) // count)):
        try:
            record = source[index]
        except UnreadableRecord:
            continue
        texts.append(record["captions"][0])
        values.append(record["caption_states"][0] if spec.encode is None else texts[-1])
    return values, texts


def with_empty_caption(params: Params, encoder: TextEncoder, name: str) -> Params:
    """The parameters of a network of text, whose encoder this is.

    Converted weights do not know the empty caption: theirs is zero, and becomes the encoder's. name: the encoder's, for
    messages. Raises ConfigError for an encoder whose empty caption has other states than the network knows.
    """
    ours, theirs = encoder([""])[0], np.asarray(params[EMPTY_CAPTION])
    if not theirs.any() and theirs.shape == ours.shape:
        return params | {EMPTY_CAPTION: ours}
    if not are_same_states(theirs, ours):
        raise ConfigError(
            f"text_encoder={name} does not give the states of the empty caption that this model was trained with: "
            "encoder and model do not belong together, give the encoder of its captions"
        )
    return params


def _shown(values: Sequence[Any]) -> str:
    text = repr(list(values[:3]))[:80]
    return text if len(values) <= 3 else f"{text[:-1]}, ...]"
