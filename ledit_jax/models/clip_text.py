"""CLIP's text encoder: token ids to the states that a text-to-image network is conditioned on.

The weights come from transformers' files, see `ledit_jax.convert.clip`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ledit_jax.errors import ConfigError
from ledit_jax.models.clip_layers import Tower, TowerConfig, make_norm

_normal_002 = nnx.initializers.normal(0.02)


@dataclass(frozen=True)
class CLIPTextConfig(TowerConfig):
    """Sizes of the encoder; the defaults are those of ViT-L/14 (123,060,480 parameters)."""

    vocab_size: int = 49408
    length: int = 77
    """Tokens of every prompt, with the start, the end and the padding."""

    def __post_init__(self):
        super().__post_init__()
        if self.vocab_size < 2 or self.length < 2:
            raise ConfigError(f"vocab_size={self.vocab_size} and length={self.length} must hold a start and an end")


class CLIPText(nnx.Module):
    """Embedding of tokens and of places, causal layers, norm. Padding is a token like any other: nothing masks it."""

    def __init__(self, config: CLIPTextConfig, rngs: nnx.Rngs):
        self.config = config
        self.token_embedding = nnx.Param(_normal_002(rngs.params(), (config.vocab_size, config.width)))
        self.position_embedding = nnx.Param(_normal_002(rngs.params(), (config.length, config.width)))
        self.tower = Tower(config, is_causal=True, rngs=rngs)
        self.norm_out = make_norm(config, rngs)

    def __call__(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """The last hidden states, after the final norm. Ids are 0 .. vocab_size - 1."""
        x = jnp.take(self.token_embedding[...], tokens, axis=0, mode="clip") + self.position_embedding[...]
        return self.norm_out(self.tower(x))


def at_end(states: Float[Array, "B S D"], tokens: Int[Array, "B S"], end: int) -> Float[Array, "B D"]:
    """The state at the first end token, which stands for the whole text."""
    place = jnp.argmax(tokens == end, axis=1)
    return jax.vmap(lambda row, index: row[index])(states, place)
