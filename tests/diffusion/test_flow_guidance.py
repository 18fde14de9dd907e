"""Guidance through a flow, in the real pipeline, against float64: each class is half of a mixture of Gaussians."""

import itertools
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles.exact_flow import exact_velocity
from oracles.mixture import D, class_prior
from tiny import flow_config

from ledit_jax.config import SampleConfig
from ledit_jax.diffusion import sample_keys, sample_noise
from ledit_jax.models import Network
from ledit_jax.models.condition import ClassLabels
from ledit_jax.sampling.pipeline import LEDiTPipeline

CALLS, SCALE = 10, 3.0
INTERVAL = (0.15, 0.5)  # other calls than those that SiT's time, 1 - t, would name
SHAPE = (2, 4, 4)  # D values in four channels, so that guiding three of them is not guiding all
LABELS = np.array([0, 1, 0], np.int32)


class ExactModule(nnx.Module):
    def __init__(self, convention):
        self.convention, self.unused = convention, nnx.Param(jnp.zeros(1))

    def __call__(self, x, times, labels):
        t = 1 - times[0] if self.convention == "sit" else times[0]
        v = exact_velocity("linear", x.reshape(-1, D), t, jnp, class_prior(labels, jnp)).reshape(x.shape)
        return jnp.concatenate([v, 9 * v], axis=-1) if self.convention == "sit" else v


@dataclass(frozen=True)
class ExactNetwork(Network):
    convention: str

    @property
    def condition(self):
        return ClassLabels(2)

    def build(self, rngs):
        return ExactModule(self.convention)


def expected(noise, channels):
    """Euler's method in float64, guided where the interval, in noise-time, says so."""
    x, nodes = noise.reshape(-1, D).astype(np.float64), np.linspace(1, 0, CALLS + 1)
    guided = np.arange(D) % 4 < (3 if channels == "3" else 4)
    calls = 0
    for t, following in itertools.pairwise(nodes):
        v, null = (
            exact_velocity("linear", x, t, np, class_prior(labels, np)) for labels in (LABELS, np.full_like(LABELS, 2))
        )
        if INTERVAL[0] <= t <= INTERVAL[1]:
            calls += 1
            v = np.where(guided, null + SCALE * (v - null), v)
        x += (following - t) * v
    assert 0 < calls < CALLS
    return x.reshape(noise.shape)


@pytest.mark.parametrize("channels, convention", [("3", "sit"), ("all", "noise_time")])
def test_guided_samples_are_the_exact_fields(channels, convention):
    config = flow_config(flow=dict(convention=convention))
    config = config.replaced("data", image_height=2, image_width=4, image_channels=4)
    options = SampleConfig("euler", CALLS, SCALE, channels, cfg_interval=INTERVAL)
    pipeline = LEDiTPipeline(config, {"unused": jnp.zeros(1)}, network=ExactNetwork(convention))
    x = pipeline.sample_latents(LABELS, np.arange(3), 2, 4, options, 0)
    noise = np.asarray(sample_noise(sample_keys(0, np.arange(3)), SHAPE))
    want = expected(noise, channels)
    np.testing.assert_allclose(x, want, atol=2e-5)
    # The oracle tells the channels apart, and a guided sample from one that is not.
    other = expected(noise, "all" if channels == "3" else "3")
    assert (np.abs(other - want).max(axis=(1, 2)) > 0.01).any()
