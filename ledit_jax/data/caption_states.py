"""Captions to the states that text encoders make of them, beside the moments of their images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Shaped

from ledit_jax.data.latent_records import STATES
from ledit_jax.data.source import Source, UnreadableRecord
from ledit_jax.errors import ConfigError

_LOOKED_AT = 16
"""Records whose captions are counted for an estimate."""


@runtime_checkable
class TextEncoder(Protocol):
    """What data, sampling and evaluation ask of a text encoder, of `ledit_jax.models` or anybody's."""

    name: str
    """Which kind it is, as `text.encoder` has it."""
    fingerprint: str
    """Sixteen hexadecimal digits: encoders that differ in a weight or a token have different ones."""
    length: int
    """S, tokens of every prompt. It cuts what is longer, and says so."""
    width: int
    """E, numbers of each token's state."""

    def __call__(self, prompts: Sequence[str]) -> Float32[np.ndarray, "B S E"]:
        """The states. A prompt gets the same ones whatever stands beside it."""


@dataclass(frozen=True)
class CaptionStates:
    """What makes the states of captions, and the dtype in `STATES` that they are stored as.

    name: which encoder it is, for people to read: a path.
    """

    encoder: TextEncoder
    dtype: str = "bfloat16"
    name: str = ""

    def __post_init__(self):
        if self.dtype not in STATES:
            raise ConfigError(f"text_dtype={self.dtype} is unknown: use {' or '.join(STATES)}")

    @property
    def metadata(self) -> dict[str, Any]:
        """The fields of `LatentMetadata` that are about captions."""
        encoder = self.encoder
        return {
            "text": self.name or encoder.name,
            "text_id": encoder.fingerprint,
            "text_length": encoder.length,
            "text_width": encoder.width,
            "text_dtype": self.dtype,
        }

    def encode(self, captions: Sequence[Sequence[str]]) -> list[Shaped[np.ndarray, "_ S E"]]:
        """The states [n, S, E] of the n captions of each image; those of all images are encoded together."""
        if not captions:
            return []
        states = self.encoder([text for texts in captions for text in texts]).astype(STATES[self.dtype])
        return np.split(states, np.cumsum([len(texts) for texts in captions])[:-1])

    def encode_empty(self) -> Float32[np.ndarray, "S E"]:
        """The states of the empty caption, in full: the network keeps them."""
        return self.encoder([""])[0]


def check_captions(source: Source, name: str, captions: CaptionStates | None) -> None:
    """Raises ConfigError where captions are to be encoded of a source, called `name`, that has none."""
    if captions and not getattr(source, "has_captions", False):
        raise ConfigError(
            f"data.source={name} has no captions for text_encoder={captions.metadata['text']}: leave it out, or take "
            "coco, captioned_folder, or a set of tfds with captions"
        )


def mean_captions(source: Source) -> float:
    """Captions of an image, from a look at some spread over all."""
    counts = []
    for index in range(0, len(source), -(-len(source) // _LOOKED_AT)):
        try:
            counts.append(len(source[index]["captions"]))
        except UnreadableRecord:
            continue
    return float(np.mean(counts)) if counts else 0.0
