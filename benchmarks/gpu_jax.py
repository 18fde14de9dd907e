"""Our side of benchmarks/gpu.py: the very programs that train.py and sample.py run, on random inputs."""

import functools
import itertools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from oracles import ledit_params, torch_dit

from benchmarks.gpu_cases import Case
from ledit_jax.config import Config
from ledit_jax.diffusion import make_process, sample_keys
from ledit_jax.models import init_params, make_network
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.sampling.denoising import make_denoising_step
from ledit_jax.training.state import init_state
from ledit_jax.training.step import make_train_step


def make_step(config: Config, case: Case, inputs: dict[str, np.ndarray]) -> tuple[Callable[[], float], Callable]:
    """(step, peak memory in bytes) of training or of a sampler; a step returns when its work is done."""
    device, arrays = jax.devices()[0], jax.device_put(inputs)
    step = _train(config, arrays) if case.is_training else _sample(config, case, arrays)
    return step, lambda: (device.memory_stats() or {}).get("peak_bytes_in_use", 0)


def _train(config: Config, inputs: dict[str, jax.Array]) -> Callable[[], float]:
    key = jax.random.key(0)
    process = make_process(config)
    network = make_network(config, process)
    step = jax.jit(make_train_step(network, process, config.train), static_argnums=3, donate_argnums=0)
    held = [jax.jit(functools.partial(init_state, network, config.train))(key)]
    batch, not_logged = {"x": inputs["x"], "condition": inputs["y"]}, np.bool_(False)

    def run() -> float:
        held[0], metrics = step(held[0], batch, key, 1, not_logged)
        return float(metrics["loss"])

    return run


def _sample(config: Config, case: Case, inputs: dict[str, jax.Array]) -> Callable[[], float]:
    """The sampler's steps in turn, from noise on; after the last one the first again."""
    process, mesh = make_process(config), data_mesh(jax.devices()[:1])
    network = make_network(config, process).for_sampling(config.sample)
    channels = config.sample.cfg_channels
    sampler, step = make_denoising_step(
        network, process, mesh, case.task, case.num_steps, config.num_tokens(), channels
    )
    params = jax.jit(lambda: network.rounded(init_params(network, jax.random.key(0))))()
    keys, null = sample_keys(0, np.arange(len(inputs["x"]))), network.condition.null(len(inputs["x"]))
    held, steps = [None], itertools.cycle(range(case.num_steps))

    def run() -> float:
        index = next(steps)
        state = sampler.init(inputs["x"]) if index == 0 else held[0]
        held[0] = jax.block_until_ready(step(params, state, index, keys, inputs["y"], null, 4.0, True))
        return float(sampler.sample(held[0]).sum()) if index == case.num_steps - 1 else 0.0

    return run


def output(config: Config, peer: torch_dit.LEDiT, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The network's output NHWC with the peer's weights."""
    model = ledit_params.ledit_peer(peer, config.model, config.in_channels)
    x, t, y = (jnp.asarray(inputs[name]) for name in ("x", "t", "y"))
    return np.asarray(jax.jit(lambda x, t, y: model(x, t, y))(x, t, y))


def matmul_rate(size: int, repeats: int) -> float:
    """FLOP/s of a chain of bfloat16 products: what the card really gives."""
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16) / size**0.5
    chain = jax.jit(lambda a: jax.lax.fori_loop(0, repeats, lambda i, x: x @ a, a))
    times = []
    for _ in range(4):
        start = time.perf_counter()
        jax.block_until_ready(chain(a))
        times.append(time.perf_counter() - start)
    return repeats * 2 * size**3 / min(times)
