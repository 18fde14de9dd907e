"""A text encoder of nothing but noise, and a network that is told its states."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tiny import tiny_config

from ledit_jax.config import Config
from ledit_jax.models import Network, Params, init_params
from ledit_jax.models.condition import EMPTY_CAPTION, TextStates
from ledit_jax.models.embed import patchify, unpatchify


@dataclass(frozen=True)
class ToyText:
    """States [length, width] drawn from a normal whose seed is the text's checksum."""

    seed: int = 0
    length: int = 5
    width: int = 8
    name: str = "toy"

    @property
    def fingerprint(self) -> str:
        return f"toy-{self.seed}"

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        seeds = [(self.seed, zlib.crc32(prompt.encode())) for prompt in prompts]
        draws = [np.random.default_rng(seed).standard_normal((self.length, self.width)) for seed in seeds]
        return np.stack(draws).astype(np.float32)


class TextMixer(nnx.Module):
    """A token's mean of the states, or of the empty caption's, and the time are added to the image's tokens."""

    def __init__(self, rngs: nnx.Rngs, shape: tuple[int, int], width: int = 16):
        self.empty_caption = nnx.Param(jnp.zeros(shape))
        self.inward = nnx.Linear(4, width, rngs=rngs)
        self.text = nnx.Linear(shape[1], width, rngs=rngs)
        self.time = nnx.Linear(1, width, rngs=rngs)
        self.outward = nnx.Linear(width, 8, rngs=rngs)

    def __call__(self, x, times, condition):
        empty = jax.lax.stop_gradient(self.empty_caption[...])
        states = jnp.where(condition["given"][:, None, None], condition["states"], empty)
        told = self.text(states.mean(1)) + self.time(times[:, None].astype(jnp.float32) / 1000)
        return unpatchify(self.outward(jnp.tanh(self.inward(patchify(x, 2)) + told[:, None, None])), 2)


@dataclass(frozen=True)
class TextNetwork(Network):
    """Of grey images, for DiT's diffusion."""

    condition = TextStates(5, 8)
    frozen = (EMPTY_CAPTION,)

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        return TextMixer(rngs, self.condition.shape)


def text_config(**train) -> Config:
    """Digits at 8x8, for a `TextNetwork` in the place of the config's network."""
    values = tiny_config(train=dict(dilation_probability=0.0) | train).to_dict()
    values["model"] |= dict(network="mmdit")
    values["text"] |= dict(encoder="clip", length=5, width=8)
    return Config.from_dict(values)


def text_params() -> Params:
    """Of a `TextNetwork` that was trained with a ToyText()."""
    return init_params(TextNetwork(), jax.random.key(0)) | {EMPTY_CAPTION: jnp.asarray(ToyText()([""])[0])}
