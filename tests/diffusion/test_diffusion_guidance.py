"""Which channels guidance moves, by how much, and at what cost in network calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ledit_jax.diffusion import GaussianProcess
from ledit_jax.diffusion.guidance import conditional, guidance_mask, guided
from ledit_jax.errors import ConfigError

NULL = 10
LABELS = jnp.array([3, 7])
T = jnp.array([5, 900])


class Network:
    """Answers something different in every channel, for every label, timestep and input; keeps its calls."""

    def __init__(self, dtype=jnp.float32):
        self.calls, self.dtype = [], dtype

    def __call__(self, x, timesteps, labels):
        self.calls.append((x, timesteps, labels))
        gain = jnp.arange(1.0, 2 * x.shape[-1] + 1)
        context = jnp.sin(labels + timesteps / 100.0).reshape(-1, 1, 1, 1)
        return (jnp.concatenate([x, -x], axis=-1) * gain + gain**2 * context).astype(self.dtype)


def image(channels):
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, channels)), jnp.float32)


@pytest.mark.parametrize("channels, num_channels, num_guided", [("3", 4, 3), ("all", 4, 4), ("3", 1, 1), ("all", 1, 1)])
def test_guided_channels(channels, num_channels, num_guided):
    x = image(num_channels)
    cond, null = (np.asarray(Network()(x, T, y), np.float64) for y in (LABELS, jnp.full(2, NULL)))
    expected = cond.copy()
    expected[..., :num_guided] = (null + 2.5 * (cond - null))[..., :num_guided]
    ours = guided(Network(), LABELS, jnp.full(2, NULL), 2.5, channels)(x, T)
    assert ours.shape == (2, 3, 5, 2 * num_channels)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    # The oracle can tell guided channels from the others.
    assert np.all(np.abs(expected - cond).max(axis=(0, 1, 2))[:num_guided] > 0.1)


def test_guidance_is_one_call_with_the_conditional_half_first():
    network, x = Network(), image(4)
    guided(network, LABELS, jnp.full(2, NULL), 4.0, "3")(x, T)
    ((x_seen, t_seen, y_seen),) = network.calls
    np.testing.assert_array_equal(x_seen, np.concatenate([x, x]))
    np.testing.assert_array_equal(t_seen, [5, 900, 5, 900])
    np.testing.assert_array_equal(y_seen, [3, 7, NULL, NULL])


def test_scale_one_calls_the_network_on_the_batch_as_it_is():
    network, x = Network(), image(4)
    ours = guided(network, LABELS, jnp.full(2, NULL), 1.0, "3")(x, T)
    assert len(network.calls) == 1 and network.calls[0][0].shape == x.shape
    np.testing.assert_array_equal(ours, conditional(Network(), LABELS)(x, T))
    np.testing.assert_array_equal(ours, Network()(x, T, LABELS))


def test_scale_zero_is_unconditional():
    x = image(3)
    ours = guided(Network(), LABELS, jnp.full(2, NULL), 0.0, "all")(x, T)
    np.testing.assert_allclose(ours[..., :3], Network()(x, T, jnp.full(2, NULL))[..., :3], rtol=1e-6)


def test_scale_may_be_traced():
    x = image(4)
    run = jax.jit(lambda scale: guided(Network(), LABELS, jnp.full(2, NULL), scale, "3")(x, T))
    for scale in (1.0, 1.5, 4.0):
        expected = guided(Network(), LABELS, jnp.full(2, NULL), scale, "3")(x, T)
        np.testing.assert_allclose(run(scale), expected, rtol=1e-5, atol=1e-4)
    assert run._cache_size() == 1


def test_guidance_of_a_bfloat16_network_is_computed_in_float32():
    x = image(4)
    cond, null = (Network(jnp.bfloat16)(x, T, y).astype(jnp.float32) for y in (LABELS, jnp.full(2, NULL)))
    ours = guided(Network(jnp.bfloat16), LABELS, jnp.full(2, NULL), 1.5, "all")(x, T)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours[..., :4], (null + 1.5 * (cond - null))[..., :4], rtol=1e-6)


def test_mask_over_the_interval_is_closed_and_in_visiting_order():
    timesteps = np.array([1000, 800, 500, 300, 0])
    np.testing.assert_array_equal(guidance_mask(timesteps, (0.3, 0.8), 1000.0), [False, True, True, True, False])
    sampler = GaussianProcess().make_sampler("ddpm", 250)
    assert guidance_mask(sampler.times, (0.0, 1.0), 1000.0).all()
    mask = guidance_mask(sampler.times, (0.2, 1.0), 1000.0)
    assert isinstance(mask, np.ndarray) and mask.dtype == bool and mask[0] and not mask[-1]
    assert mask.sum() == np.sum(sampler.times >= 200)


def test_errors_name_the_value_and_the_remedy():
    with pytest.raises(ConfigError, match=r"cfg_interval=\(0.8, 0.3\) is empty"):
        guidance_mask(np.arange(3), (0.8, 0.3), 1000.0)
    with pytest.raises(ConfigError, match="cfg_channels='4' is unknown: use 3 or all"):
        guided(Network(), LABELS, jnp.full(2, NULL), 1.5, "4")
