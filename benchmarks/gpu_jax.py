"""Our side of benchmarks/gpu.py: the very programs that train.py and sample.py run, on random inputs."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from oracles import ledit_params, torch_dit

from ledit_jax.config import Config
from ledit_jax.diffusion import make_process, sample_keys
from ledit_jax.models import init_params, make_network
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.sampling.denoising import make_denoising_step
from ledit_jax.training.state import init_state
from ledit_jax.training.step import make_train_step


def make_step(config: Config, task: str, inputs: dict[str, np.ndarray]) -> tuple[Callable[[], float], Callable]:
    """(step, peak memory in bytes) for "train" or "sample"; a step returns when its work is done."""
    make = _train if task == "train" else _sample
    device = jax.devices()[0]
    return make(config, jax.device_put(inputs)), lambda: (device.memory_stats() or {}).get("peak_bytes_in_use", 0)


def _train(config: Config, inputs: dict[str, jax.Array]) -> Callable[[], float]:
    key = jax.random.key(0)
    process = make_process(config)
    network = make_network(config, process)
    step = jax.jit(make_train_step(network, process, config.train), static_argnums=3, donate_argnums=0)
    held = [jax.jit(functools.partial(init_state, network, config.train))(key)]
    batch = {"x": inputs["x"], "condition": inputs["y"]}

    def run() -> float:
        held[0], metrics = step(held[0], batch, key, 1)
        return float(metrics["loss"])

    return run


def _sample(config: Config, inputs: dict[str, jax.Array]) -> Callable[[], float]:
    process, mesh = make_process(config), data_mesh(jax.devices()[:1])
    network = make_network(config, process)
    _, step = make_denoising_step(network, process, mesh, "ddpm", 250, config.num_tokens(), "3")
    params = jax.jit(lambda: init_params(network, jax.random.key(0)))()
    keys, null = sample_keys(0, np.arange(len(inputs["x"]))), network.condition.null(len(inputs["x"]))
    return lambda: float(step(params, inputs["x"], 100, keys, inputs["y"], null, 4.0, True).sum())


def output(config: Config, peer: torch_dit.LEDiT, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The network's output NHWC with the peer's weights."""
    model = ledit_params.ledit_peer(peer, config.model, config.in_channels)
    x, t, y = (jnp.asarray(inputs[name]) for name in ("x", "t", "y"))
    return np.asarray(jax.jit(lambda x, t, y: model(x, t, y))(x, t, y))


def matmul_rate(size: int = 8192, repeats: int = 20) -> float:
    """FLOP/s of a chain of bfloat16 products: what the card really gives."""
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16) / size**0.5
    chain = jax.jit(lambda a: jax.lax.fori_loop(0, repeats, lambda i, x: x @ a, a))
    times = []
    for _ in range(4):
        start = time.perf_counter()
        jax.block_until_ready(chain(a))
        times.append(time.perf_counter() - start)
    return repeats * 2 * size**3 / min(times)
