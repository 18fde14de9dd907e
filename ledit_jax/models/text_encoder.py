"""Prompts to the states that a text-to-image network is conditioned on."""

import logging
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from ledit_jax.models.clip_text import CLIPText
from ledit_jax.models.tokenizer import CLIPTokenizer
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.parallel.sharding import batch_sharding

_log = logging.getLogger(__name__)
_NAMED = 3
"""Over-long prompts of one call that get a line each."""


class CLIPTextEncoder:
    """CLIP's text encoder with its tokenizer, over all local devices, in float32 throughout.

    Prompts run in batches of one size, filled up, so that one program serves all.
    """

    name = "clip"

    def __init__(self, network: CLIPText, tokenizer: CLIPTokenizer, fingerprint: str, batch_size: int | None = None):
        """batch_size: prompts at a time on each device; by default 8 on CPU and 64 elsewhere."""
        self.fingerprint, self.tokenizer = fingerprint, tokenizer
        self.length, self.width = network.config.length, network.config.width
        self.mesh = data_mesh(jax.local_devices())
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        self.batch_size = (batch_size or (8 if on_cpu else 64)) * self.mesh.size
        graphdef, params = nnx.split(network, nnx.Param)
        self._params = jax.device_put(params, NamedSharding(self.mesh, P()))
        self._run = jax.jit(lambda params, tokens: nnx.merge(graphdef, params)(tokens))

    def __call__(self, prompts: Sequence[str]) -> Float[np.ndarray, "B S E"]:
        """The last hidden states after the final norm, those of the padding included.

        A prompt that is too long loses its end, which a warning says.
        """
        tokens, cut = self.tokenizer(prompts)
        warn_of_cuts(prompts, cut, self.length)
        states = np.empty((len(prompts), self.length, self.width), np.float32)
        for start in range(0, len(prompts), self.batch_size):
            part = slice(start, start + self.batch_size)
            states[part] = self._encode(tokens[part])
        return states

    def _encode(self, tokens: Int[np.ndarray, "B S"]) -> Float[np.ndarray, "B S E"]:
        batch = np.full((self.batch_size, self.length), self.tokenizer.end, np.int32)
        batch[: len(tokens)] = tokens
        # Accelerators would multiply in bfloat16 or TF32 by default: states must not depend on who computes them.
        with jax.default_matmul_precision("highest"):
            states = self._run(self._params, jax.device_put(batch, batch_sharding(self.mesh)))
        return np.asarray(states)[: len(tokens)]


def warn_of_cuts(prompts: Sequence[str], cut: Int[np.ndarray, " B"], length: int) -> None:
    """Says which prompts lose how many tokens: what `CLIPTokenizer` returns."""
    long = np.flatnonzero(cut)
    for index in long[:_NAMED]:
        _log.warning(
            "warning: the prompt %.60r is too long for %d tokens: the last %d of it are cut off",
            *(prompts[index], length, cut[index]),
        )
    if len(long) > _NAMED:
        _log.warning(
            "warning: %d more prompts are too long, and up to %d tokens of each are cut off",
            *(len(long) - _NAMED, cut[long[_NAMED:]].max()),
        )
