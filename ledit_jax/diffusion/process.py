"""What a generative process is to training and sampling, whichever it is, and the randomness of sampling.

A process says at which times a network trains, what it predicts there, and which samplers lead from noise to data.
Every sample has a key of its own, so that it does not depend on its batch.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from ledit_jax.config import SampleConfig

Images = Float[Array, "B H W C"]

Denoiser = Callable[[Images, Num[Array, "B ..."]], Float[Array, "B H W out"]]
"""denoise(x, times) -> what the process predicts, in `Process.out_channels` channels. One time for each sample, or the
two numbers by which MeanFlow tells a jump."""

Step = Int[Array, ""] | int
"""Number of network calls made so far: 0 .. num_steps - 1 in visiting order. May be traced."""

# fold_in data of the initial noise. Steps fold in numbers that never come near.
_INITIAL_NOISE = 2**31 - 1


class Sampler(ABC):
    """A way from noise to data, one network call a step.

    All methods are pure: `init` makes the state (a pytree), `step` advances it and `sample` reads the image off the
    final one.
    """

    @property
    @abstractmethod
    def times(self) -> Num[np.ndarray, " num_steps"]:
        """The process's time at each network call, noisiest first."""

    @property
    def num_steps(self) -> int:
        """Network calls per sample."""
        return len(self.times)

    def init(self, noise: Images) -> Any:
        """State before step 0, from standard normal noise."""
        return noise

    @abstractmethod
    def step(self, denoise: Denoiser, state: Any, step: Step, keys: Key[Array, " B"] | None) -> Any:
        """State after network call `step`. Samplers that draw no noise ignore `keys`."""

    def sample(self, state: Any) -> Images:
        """The sample, once all steps are done; before that, the noisy image."""
        return state


class Process(ABC):
    """Implementations are frozen dataclasses of settings: equal ones share compiled programs."""

    end_time: float
    """The noisiest time; 0 is clean data."""

    @abstractmethod
    def out_channels(self, channels: int) -> int:
        """Channels of the network's output, for data of so many."""

    def for_sampling(self, options: SampleConfig) -> "Process":
        """The process as `options` want it drawn from: what differs from training is settled here."""
        return self

    def fed_times(self, times: Num[Array, " B"]) -> Num[Array, " B"]:
        """What the network is fed at these times."""
        return times

    @abstractmethod
    def draw_times(self, key: jax.Array, batch_size: int) -> Num[Array, " B"]:
        """The times at which a batch is trained on."""

    @abstractmethod
    def add_noise(self, x0: Images, times: Num[Array, " B"], noise: Images) -> Images:
        """Clean data taken to these times with standard normal noise."""

    @abstractmethod
    def training_losses(
        self, denoise: Denoiser, x0: Images, times: Num[Array, " B"], noise: Images
    ) -> dict[str, Float[Array, " B"]]:
        """Loss of each sample, float32: "loss", and the parts it consists of."""

    @abstractmethod
    def make_sampler(self, name: str, num_steps: int, num_tokens: int | None = None) -> Sampler:
        """The sampler of that name. num_tokens: of the images to draw, for processes whose times depend on it.

        Raises ConfigError for a name or a number of steps that the process does not have.
        """


def sample_keys(seed: int, indices: Int[Array, " B"] | Int[np.ndarray, " B"]) -> Key[Array, " B"]:
    """The key of each sample, from the seed and the sample's own index in the whole run."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), jnp.asarray(indices))


def sample_noise(keys: Key[Array, " B"], shape: tuple[int, int, int]) -> Images:
    """Standard normal noise to start from, one draw of shape (H, W, C) for each key."""
    return step_noise(keys, _INITIAL_NOISE, shape)


@functools.partial(jax.jit, static_argnums=2)
def step_noise(keys: Key[Array, " B"] | None, step: Step, shape: tuple[int, ...]) -> Images:
    """Standard normal noise for one step. Raises ValueError without keys."""
    if keys is None:
        raise ValueError("keys=None, and this sampler draws noise: pass one key per sample (see sample_keys)")
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, step), shape))(keys)


def sample_loop(sampler: Sampler, denoise: Denoiser, noise: Images, keys: Key[Array, " B"] | None) -> Images:
    """All steps in one device program: the sample that grew from standard normal `noise`."""
    state = jax.lax.fori_loop(
        0, sampler.num_steps, lambda step, state: sampler.step(denoise, state, step, keys), sampler.init(noise)
    )
    return sampler.sample(state)
