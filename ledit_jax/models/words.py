"""A text encoder of a few words that is fixed and exact: for small captioned data and for tests, with no download.

Fixed, not trained along, so that its states can be read from data like any encoder's, and are the same in every run.
"""

import functools
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ledit_jax.errors import ConfigError, nearest

logger = logging.getLogger(__name__)
WORDS = (
    *("a", "one", "two", "three", "all", "the", "to", "of"),
    *("red", "green", "blue", "yellow", "purple", "white"),
    *("disc", "square", "triangle", "cross", "discs", "squares", "triangles", "crosses"),
    *("above", "over", "below", "under", "left", "right"),
)
"""All that can be said; of the scenes (`ledit_jax/data/scene_captions.py`)."""


@dataclass(frozen=True)
class Words:
    """Prompts to states: a prompt's n-th state is the sum of a vector of its n-th word and one of the place n.

    Vectors of words and places, and that of no word which fills a prompt up, are orthogonal: rows of a Hadamard
    matrix (Sylvester's). So every state is exact in any precision, and word and place can be told apart by one
    linear layer. States have mean square 1.
    """

    length: int = 12
    """States of a prompt (text.length)."""
    width: int = 64
    """Of a state (text.width): a power of two that has room for all words and places."""
    name = "words"

    def __post_init__(self):
        needed = 1 + len(WORDS) + self.length
        if self.length < 1 or self.width < needed or self.width & (self.width - 1):
            raise ConfigError(
                f"text.width={self.width} and text.length={self.length} do not fit the encoder words: use length 12 or "
                f"more and a width that is a power of two, {needed} or more"
            )

    @property
    def fingerprint(self) -> str:
        """Of what its states depend on."""
        return hashlib.sha256(repr((self.name, WORDS, self.length, self.width)).encode()).hexdigest()[:16]

    def __call__(self, prompts: Sequence[str]) -> Float[np.ndarray, "B S E"]:
        """float32 states; a prompt of too many words is cut, with a warning. Raises ConfigError for an unknown word."""
        places = np.arange(self.length)
        words = np.array([self._numbers(prompt) for prompt in prompts]).reshape(len(prompts), self.length)
        rows = _hadamard(self.width)
        return (rows[words] + rows[1 + len(WORDS) + places]) * np.float32(np.sqrt(0.5))

    def _numbers(self, prompt: str) -> list[int]:
        """Row of each word, 0 behind the last."""
        words = prompt.lower().replace(",", " ").replace(".", " ").split()
        for word in words:
            if word not in WORDS:
                raise ConfigError(
                    f"prompt {prompt!r}: the encoder words does not know {word!r}: {nearest(word, WORDS)}"
                )
        cut, kept = words[self.length :], words[: self.length]
        if cut:
            logger.warning(f"prompt {prompt!r} has more than {self.length} words: the last {len(cut)} are left out")
        return [1 + WORDS.index(word) for word in kept] + [0] * (self.length - len(kept))


@functools.cache
def _hadamard(width: int) -> Float[np.ndarray, "width width"]:
    """Orthogonal rows of ones and minus ones, for a width that is a power of two."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < width:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix
