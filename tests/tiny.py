"""Small configs that tests train and sample in seconds, and processes with several CPU devices."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ledit_jax.config import Config, DataConfig, ModelConfig, SampleConfig, TrainConfig, model_preset, validate
from ledit_jax.diffusion import make_process
from ledit_jax.models import LEDiTNetwork, Network, Params, abstract_params, make_network
from ledit_jax.models.ledit import LEDiT
from ledit_jax.models.positions import make_position
from ledit_jax.training.state import TrainState, init_state
from ledit_jax.training.step import make_train_step


def tiny_config(family: str = "LEDiT", *, model: dict | None = None, train: dict | None = None) -> Config:
    """Digits at 8x8 on a 4x4 grid: width 16, depth 2, batch 8, eight steps."""
    sizes = dict(depth=2, width=16, num_heads=2, num_classes=10, scan_layers=False)
    data = DataConfig(source="digits", image_height=8, image_width=8, image_channels=1, flip=False)
    defaults = dict(
        num_steps=8,
        batch_size=8,
        learning_rate=1e-3,
        ema_decay=0.9,
        dilation_probability=0.5 if family == "LEDiT" else 0.0,
        log_every=1,
        checkpoint_every=4,
        keep_every=0,
        sample_every=0,
    )
    config = Config(
        model=model_preset(f"{family}-S/2", **(sizes | (model or {}))),
        data=data,
        train=TrainConfig(**(defaults | (train or {}))),
        sample=SampleConfig(sampler="ddim", num_steps=4),
    )
    validate(config)
    return config


def flow_config(model=(), flow=(), train=(), sample=()) -> Config:
    """The same as a flow, with fields of its sections replaced."""
    values = tiny_config(train=dict(train)).to_dict()
    values["model"] |= dict(model)
    values["diffusion"]["objective"] = "flow"
    values["flow"] |= dict(flow)
    values["sample"] |= dict(sampler="euler", num_steps=4) | dict(sample)
    return Config.from_dict(values)


MEAN_FLOW = dict(
    model=dict(span_embed=True),
    flow=dict(mean_flow_share=0.5, times="logit_normal"),
    sample=dict(sampler="meanflow", num_steps=2),
)
"""What makes a `flow_config` one of MeanFlow."""


def tiny_mmdit(family: str = "LEMMDiT", *, model: dict | None = None, train: dict | None = None) -> Config:
    """The same, told captions of three states of width 8, which `Captioned` has, and trained as a flow."""
    config = tiny_config("NoPE", train=train)
    sizes = dict(depth=2, width=16, num_heads=2, scan_layers=False)
    values = config.to_dict() | {
        "model": dataclasses.asdict(model_preset(f"{family}-S/2", **(sizes | (model or {})))),
        "text": {"encoder": "clip", "length": 3, "width": 8},
        "diffusion": {"objective": "flow"},
        "sample": {"sampler": "euler", "num_steps": 3, "cfg_scale": 2.0, "cfg_channels": "all"},
    }
    return Config.from_dict(values)


class Captioned:
    """Digits with two captions each, as random states that belong to their class."""

    def __init__(self, config: Config):
        from ledit_jax.data import make_source  # here: who builds networks alone needs no Grain

        self._digits = make_source(config.data, config.autoencoder)
        states = np.random.default_rng(0).normal(size=(11, 2, config.text.length, config.text.width))
        *self._states, (self.empty_caption, _) = states.astype(np.float32)

    def __len__(self) -> int:
        return len(self._digits)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._digits[index]
        return {"image": record["image"], "caption_states": self._states[record["label"]]}


def with_train(config: Config, **fields) -> Config:
    """The config with fields of its train section replaced."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **fields))


def network_of(config: Config) -> Network:
    """The network that a config describes."""
    return make_network(config, make_process(config))


def build_ledit(
    config: ModelConfig, in_channels: int, rngs: nnx.Rngs, grid: tuple[int, int] = (16, 16), scaled: bool = False
) -> LEDiT:
    """The module for noise and variance of so many channels; `scaled` is sampling's attention scaling beyond `grid`."""
    position, start = make_position(config, grid), config.causal_from_timestep
    network = LEDiTNetwork(config, in_channels, 2 * in_channels, grid, position, (start, 1000.0) if start else None)
    return dataclasses.replace(network, attention_scaling=scaled).build(rngs)


def noisy_params(config: Config) -> Params:
    """Parameters about as large as initialised ones, with noise where those are zero, so that no layer hides another.

    Drawn by NumPy: each shape that jax draws is a program to compile.
    """
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        size = 1 / np.sqrt(leaf.shape[-2]) if path[-1].key == "kernel" else 0.1
        return jnp.asarray(rng.normal(0, size, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(network_of(config)))


def begin_training(config: Config, params: Params) -> tuple[TrainState, Callable]:
    """The state at step 0, and the step: step(state, x, labels, key, dilation, is_logged) -> (state, metrics)."""
    network, process = network_of(config), make_process(config)
    state = init_state(network, config.train, jax.random.key(0), params)
    jitted = jax.jit(make_train_step(network, process, config.train), static_argnums=3)

    def step(state: TrainState, x, labels, key: jax.Array, dilation: int = 1, *is_logged: np.bool_):
        batch = {"x": jnp.asarray(x, jnp.float32), "condition": jnp.asarray(labels, jnp.int32)}
        return jitted(state, batch, key, dilation, *is_logged)

    return state, step


def cpu_devices(count: int) -> str:
    """XLA_FLAGS for a process with so many CPU devices, beside the flags that all tests run with (conftest.py)."""
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
