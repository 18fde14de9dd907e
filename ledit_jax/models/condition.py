"""What a network is told about the image that it should draw: the class labels of DiT and LEDiT, or a caption.

A condition is a pytree of arrays with a leading batch axis. Data, training, guidance and sampling handle it as such,
and ask the network's `ConditionSpec` for the rest.
"""

import numbers
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from numpy.typing import ArrayLike

from ledit_jax.errors import ConfigError, DataError

EMPTY_CAPTION = "empty_caption"
"""The name among a network's parameters of the states of the empty caption: what it sees where no text is given."""

_TOLERANCE = 0.02
"""Of the root mean square of states, between two that one encoder made: bfloat16 alone rounds by 0.002."""


def are_same_states(ours: ArrayLike, theirs: ArrayLike) -> bool:
    """Whether one encoder made both states [S, E] of a caption, stored or computed in whatever dtypes."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return False
    return bool(np.square(ours - theirs).mean() <= _TOLERANCE**2 * np.square(ours).mean())


@runtime_checkable
class ConditionSpec(Protocol):
    """How a network's condition is drawn from a record, what its null is, and how a user gives one. Picklable.

    The spec of a network with frozen parameters also has `constants(source)`: the values of these, by name, for a
    fresh network that is trained on this source.
    """

    def from_record(self, record: dict[str, Any], rng: np.random.Generator) -> PyTree[np.ndarray]:
        """The condition of one record of a data source, without batch axis; of several captions `rng` draws one."""

    def null(self, batch_size: int) -> PyTree[Array]:
        """The condition that says nothing, for classifier-free guidance."""

    def parse(self, values: Sequence[Any]) -> PyTree[np.ndarray]:
        """What a user asks for, one value for each image, as a condition. Raises ConfigError for what cannot be."""

    def check_source(self, source: Any) -> None:
        """Raises ConfigError for a data source whose records cannot condition this network."""


@dataclass(frozen=True)
class ClassLabels:
    """int32 [B]: a class 0 .. num_classes - 1, or num_classes for none."""

    num_classes: int

    def from_record(self, record: dict[str, Any], rng: np.random.Generator) -> np.int32:
        if "label" not in record:
            raise DataError(f"a record has {', '.join(record)} and no label, the number of its class: mend the source")
        try:
            return np.int32(operator.index(record["label"]))
        except TypeError as error:
            raise DataError(
                f"a record's label is {record['label']!r:.40}, and no whole number: mend the source"
            ) from error

    def null(self, batch_size: int) -> Int[Array, " B"]:
        return jnp.full(batch_size, self.num_classes, jnp.int32)

    def parse(self, values: Sequence[int]) -> Int[np.ndarray, " B"]:
        labels = np.asarray(values)
        if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iufO":
            raise ConfigError(f"class_labels={labels.tolist()!r:.80} must be a list of one or more class numbers")
        is_whole = [isinstance(label, numbers.Real) and label % 1 == 0 for label in labels.tolist()]
        if not all(is_whole):
            raise ConfigError(f"class_labels={labels.tolist()!r:.80} must be whole numbers")
        wrong = labels[(labels < 0) | (labels >= self.num_classes)]
        if wrong.size:
            raise ConfigError(
                f"class label {wrong[0]} is out of range: this model's classes are 0 to {self.num_classes - 1}"
            )
        return labels.astype(np.int32)

    def check_source(self, source: Any) -> None:
        if not hasattr(source, "num_classes"):
            raise ConfigError(
                "model.network=ledit is told classes, and the records of the data have captions: use mmdit"
            )
        if source.num_classes > self.num_classes:
            raise ConfigError(f"model.num_classes={self.num_classes}, but the data has {source.num_classes} classes")


@dataclass(frozen=True)
class TextStates:
    """{"states": float32 [B, S, E], "given": bool [B]}: a text encoder's states of a caption, where one is given.

    S tokens of width E. Where none is given, the network puts its own `EMPTY_CAPTION` in the place of the states.
    """

    length: int
    width: int
    encode: Callable[[Sequence[str]], np.ndarray] | None = None
    """Captions to states float32 [B, S, E], for sources of plain captions; hashable and picklable, in NumPy."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.length, self.width

    def from_record(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One of the record's "caption_states" [n, S, E]; with `encode`, of one of its "captions", a list of texts."""
        if self.encode is None:
            states = record["caption_states"]
            drawn = states[rng.integers(len(states))]
        else:
            captions = record["captions"]
            drawn = self.encode([captions[rng.integers(len(captions))]])[0]
        return {"states": np.asarray(drawn, np.float32), "given": np.bool_(True)}

    def null(self, batch_size: int) -> dict[str, Array]:
        return {"states": jnp.zeros((batch_size, *self.shape)), "given": jnp.zeros(batch_size, bool)}

    def parse(self, values: Sequence[Any]) -> dict[str, np.ndarray]:
        """values: states [S, E] of each caption; with `encode`, the captions themselves."""
        if not len(values):
            raise ConfigError("there are no prompts: give one text for each image")
        if self.encode is not None and all(isinstance(value, str) for value in values):
            values = self.encode(values)
        if any(isinstance(value, str) for value in values):
            raise ConfigError(f"prompts={list(values)} are texts, and this model needs a text encoder's states of them")
        for value in values:
            if np.shape(value) != self.shape:
                what = np.shape(value) or repr(value)
                raise ConfigError(f"a prompt's states are {what}, and this model was trained on {self.shape}")
        states = np.stack([np.asarray(value, np.float32) for value in values])
        return {"states": states, "given": np.ones(len(states), bool)}

    def constants(self, source: Any) -> dict[str, np.ndarray]:
        """The states of the empty caption: the source's, or with `encode` those that it gives."""
        states = source.empty_caption if self.encode is None else self.encode([""])[0]
        return {EMPTY_CAPTION: np.asarray(states, np.float32)}

    def check_source(self, source: Any) -> None:
        if self.encode is not None:
            if "captions" not in source[0]:
                raise ConfigError("model.network=mmdit is told captions, and the records of the data have none")
            return
        empty = getattr(source, EMPTY_CAPTION, None)
        if empty is None:
            raise ConfigError("model.network=mmdit is told captions, and the data has no states of any")
        if np.shape(empty) != self.shape:
            raise ConfigError(
                f"text.length={self.length} and text.width={self.width}, but the data has caption states of "
                f"{np.shape(empty)}"
            )
