"""What a sampling step computes and what is compiled for it: guidance costs twice, conditioning once, a size once."""

import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import network_of, tiny_config

from ledit_jax import LEDiTPipeline
from ledit_jax.diffusion import make_process, sample_keys
from ledit_jax.models.functional import abstract_params, init_params
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.sampling.denoising import make_denoising_step

BATCH = 4


def products(jaxpr, repeats=1):
    """(how often, contracted size, FLOPs of one) of each matrix product and convolution, in loops and calls too."""
    found = []
    for equation in jaxpr.eqns:
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if equation.primitive.name == "dot_general":
            (contracting, _), _ = equation.params["dimension_numbers"]
            size = math.prod(equation.invars[0].aval.shape[i] for i in contracting)
            found.append((repeats, size, 2 * out * size))
        elif equation.primitive.name == "conv_general_dilated":
            size = math.prod(equation.invars[1].aval.shape[:-1])  # HWIO
            found.append((repeats, size, 2 * out * size))
        inner_repeats = repeats * (equation.params["length"] if equation.primitive.name == "scan" else 1)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr")):
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                found += products(getattr(inner, "jaxpr", inner), inner_repeats)
    return found


def step_products(config, is_guided, sampler="ddpm"):
    mesh = data_mesh(jax.devices()[:1])
    network, process = network_of(config).for_sampling(config.sample), make_process(config)
    sampler, step = make_denoising_step(network, process, mesh, sampler, 10, config.num_tokens(), "3")
    state = jax.eval_shape(sampler.init, jnp.zeros((BATCH, *config.latent_shape())))
    keys, labels = sample_keys(0, jnp.arange(BATCH)), jnp.zeros(BATCH, jnp.int32)
    trace = jax.make_jaxpr(step, static_argnums=7)
    return products(trace(abstract_params(network), state, 0, keys, labels, labels, 4.0, is_guided).jaxpr)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp"])
def test_a_step_outside_the_interval_costs_half(sampler):
    config = tiny_config(model=dict(depth=4, scan_layers=True))
    cost = {on: sum(n * flops for n, _, flops in step_products(config, on, sampler)) for on in (True, False)}
    assert cost[True] == 2 * cost[False] > 0


@pytest.mark.parametrize("scan_layers", [True, False])
def test_timesteps_and_labels_are_embedded_once_a_step(scan_layers):
    config = tiny_config(model=dict(depth=4, scan_layers=scan_layers))
    D, rows = config.model.width, 2 * BATCH
    # Products of one row for each sample, by their shape; all others have a row for each token.
    per_sample = {
        (256, D): "timestep fc1",
        (D, D): "timestep fc2",
        (D, 6 * D): "adaLN of a block",
        (D, 2 * D): "adaLN of the last layer",
    }
    counts = Counter()
    for repeats, size, flops in step_products(config, is_guided=True):
        counts[per_sample.get((size, flops // (2 * rows * size)))] += repeats
    del counts[None]
    assert counts == {"timestep fc1": 1, "timestep fc2": 1, "adaLN of a block": 4, "adaLN of the last layer": 1}


@pytest.fixture
def compilations():
    """Grows by one for each program that XLA compiles or fetches from the cache on disk."""
    events, active = [], [True]

    def listen(name, seconds, **kwargs):
        if active[0] and name == "/jax/core/compile/backend_compile_duration":
            events.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    active[0] = False


def test_nothing_is_compiled_again_for_a_size_seen_before(compilations):
    config = tiny_config()
    pipeline = LEDiTPipeline(config, init_params(network_of(config), jax.random.key(0)))

    def run(labels, height, width, **kwargs):
        compilations.clear()
        seed, batch_size = kwargs.pop("seed", 0), kwargs.pop("batch_size", 64)
        options = pipeline.options(num_steps=3, sampler="ddim", **kwargs)
        images = pipeline(labels, height, width, seed=seed, options=options, batch_size=batch_size)
        assert images.shape == (len(labels), height, width, 1)
        return len(compilations)

    half = dict(cfg_scale=4.0, cfg_interval=(0.0, 0.5))  # steps of both kinds
    assert run([1, 2], 8, 8, **half) > 0
    assert run([3, 4], 8, 8, seed=1, **half) == 0
    assert run([3, 4], 8, 8, seed=2, cfg_scale=2.5, cfg_interval=(0.5, 1.0)) == 0
    assert run([3, 4], 8, 12, **half) > 0  # more tokens than in training: attention scaling comes in
    assert run([5, 6], 8, 8, **half) == run([7, 8], 8, 12, **half) == 0
    pipeline.set_params(jax.tree.map(lambda a: a + np.float32(0.1), pipeline.params))
    assert run([1, 2], 8, 8, **half) <= 1  # the addition just above
    assert run([1, 2, 3], 8, 8, batch_size=2, **half) == 0  # the last batch is filled up
    # Of the experiment, only what a program depends on is its key.
    pipeline = LEDiTPipeline(tiny_config(train=dict(seed=5, batch_size=4)), pipeline.params)
    assert run([1, 2], 8, 8, **half) == run([1, 2], 8, 12, **half) == 0
