"""The house is open: a text-conditioned network, a velocity process and a positional method, each written here alone,
train through the real step, loop and checkpoint, resume, and sample through the real pipeline."""

import dataclasses
import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import network_of, tiny_config, with_train

from ledit_jax.data import make_source
from ledit_jax.diffusion import GaussianProcess, Process, Sampler
from ledit_jax.errors import ConfigError
from ledit_jax.models import Network
from ledit_jax.models.embed import patchify, unpatchify
from ledit_jax.models.positions import NoPosition
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.training.loop import train
from ledit_jax.weights import load_weights

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


# A network that is told text: letters and how many of them there are.


@dataclass(frozen=True)
class Letters:
    length: int = 5

    def from_record(self, record, rng):
        return self.encode(WORDS[record["label"]])

    def encode(self, word):
        codes = np.frombuffer(word.encode()[: self.length].ljust(self.length), np.uint8)
        return {"letters": codes.astype(np.int32), "count": np.int32(len(word))}

    def null(self, batch_size):
        return {"letters": jnp.zeros((batch_size, self.length), jnp.int32), "count": jnp.zeros(batch_size, jnp.int32)}

    def parse(self, values):
        if not values or not all(isinstance(value, str) for value in values):
            raise ConfigError(f"prompts={values!r} must be one or more texts")
        return jax.tree.map(lambda *leaves: np.stack(leaves), *map(self.encode, values))

    def check_source(self, source):
        if source.num_classes > len(WORDS):
            raise ConfigError("there are more classes than words")


class TextMixer(nnx.Module):
    def __init__(self, rngs, channels, out_channels, width=16):
        self.inward = nnx.Linear(4 * channels, width, rngs=rngs)
        self.letters = nnx.Embed(256, width, rngs=rngs)
        self.time = nnx.Linear(1, width, rngs=rngs)
        self.outward = nnx.Linear(width, 4 * out_channels, rngs=rngs)

    def __call__(self, x, times, condition):
        seen = jnp.arange(condition["letters"].shape[1]) < condition["count"][:, None]
        text = (self.letters(condition["letters"]) * seen[..., None]).sum(axis=1)
        told = text + self.time(times[:, None].astype(jnp.float32) / 1000)
        return unpatchify(self.outward(jnp.tanh(self.inward(patchify(x, 2)) + told[:, None, None])), 2)


@dataclass(frozen=True)
class TextNetwork(Network):
    channels: int
    out_channels: int
    condition: Letters = Letters()

    def build(self, rngs):
        return TextMixer(rngs, self.channels, self.out_channels)


# A process: straight lines from data to noise, whose velocity the network predicts; time runs from 0 to 1.


@dataclass(frozen=True)
class EulerSampler(Sampler):
    count: int

    @property
    def times(self):
        return np.linspace(1, 0, self.count, endpoint=False).astype(np.float32)

    def step(self, denoise, state, step, keys):
        times = jnp.broadcast_to(jnp.asarray(self.times)[step], state.shape[:1])
        return state - denoise(state, times) / self.count


@dataclass(frozen=True)
class Straight(Process):
    end_time = 1.0

    def out_channels(self, channels):
        return channels

    def draw_times(self, key, batch_size):
        return jax.random.uniform(key, (batch_size,))

    def add_noise(self, x0, times, noise):
        t = times[:, None, None, None]
        return (1 - t) * x0 + t * noise

    def training_losses(self, denoise, x0, times, noise):
        velocity = denoise(self.add_noise(x0, times, noise), times)
        return {"loss": jnp.mean((velocity - (noise - x0)) ** 2, axis=(1, 2, 3))}

    def make_sampler(self, name, num_steps, num_tokens=None):
        return EulerSampler(num_steps)


# A positional method: each token is told how far down it is.


@dataclass(frozen=True)
class Depth(NoPosition):
    def add(self, x, table):
        return x + jnp.linspace(0, 1, x.shape[1], dtype=x.dtype)[:, None, None]


CONFIG = tiny_config(train=dict(num_steps=10, checkpoint_every=5, dilation_probability=0.0, learning_rate=1e-2))
NOPE = tiny_config("NoPE", train=dict(num_steps=10, checkpoint_every=5, learning_rate=1e-2))


def velocity_network():
    return dataclasses.replace(network_of(CONFIG), out_channels=1)


CASES = {
    "condition": (CONFIG, lambda: TextNetwork(1, 2), GaussianProcess(clip_denoised=True), ["one", "seven"]),
    "process": (CONFIG, velocity_network, Straight(), [1, 7]),
    "position": (NOPE, lambda: dataclasses.replace(network_of(NOPE), position=Depth()), None, [1, 7]),
    "condition and process": (CONFIG, lambda: TextNetwork(1, 1), Straight(), ["one", "seven"]),
}


@pytest.mark.parametrize("case", CASES)
def test_trains_resumes_and_samples(case, tmp_path):
    config, make, process, asked = CASES[case]
    network = make()
    given = dict(network=network, process=process, source=make_source(config.data, config.autoencoder))
    whole = train(config, tmp_path / "whole", **given)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 10 and np.isfinite(losses).all() and losses[-1] < losses[0]

    train(with_train(config, num_steps=5), tmp_path / "parts", **given)
    parts = train(config, tmp_path / "parts", **given)
    jax.tree.map(np.testing.assert_array_equal, whole.params, parts.params)

    params, _, step = load_weights(tmp_path / "whole", "ema", network=network)
    jax.tree.map(np.testing.assert_array_equal, params, whole.ema)
    pipeline = LEDiTPipeline(config, params, network=network, process=process)
    first, again = (pipeline(asked, 8, 12, cfg_scale=3.0, seed=4) for _ in range(2))
    assert step == 10 and first.shape == (2, 8, 12, 1)
    np.testing.assert_array_equal(first, again)
    assert (first != pipeline(asked[::-1], 8, 12, cfg_scale=3.0, seed=4)).any(), "what is asked for changes nothing"


def test_a_condition_of_another_kind_is_refused():
    network = TextNetwork(1, 2)
    pipeline = LEDiTPipeline(CONFIG, {}, network=network)
    with pytest.raises(ConfigError, match="must be one or more texts"):
        pipeline([3])
