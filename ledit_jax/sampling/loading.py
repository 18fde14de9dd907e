"""A checkpoint as a function of arrays."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax

from ledit_jax.config import Config
from ledit_jax.diffusion import make_process
from ledit_jax.hub import resolve
from ledit_jax.models import make_apply, make_network
from ledit_jax.weights import load_weights


def load_model(
    checkpoint: str | Path, weights: str = "ema", matmul_precision: str | None = None
) -> tuple[Callable[..., jax.Array], Config]:
    """(model, config) of a checkpoint, or of a model of the hub, org/name or org/name@revision; weights is "ema" or
    "params".

    matmul_precision: as `ModelConfig` has it, by default what the config says; "highest" to check a port.

    `model(x, t, y)` takes x float [B, H, W, C], times [B] (0 .. 999 for DiT's diffusion) and labels int [B]. It
    returns what the process predicts: for DiT's, [B, H, W, 2C], noise and then the variance's interpolation.
    """
    params, config, _ = load_weights(resolve(checkpoint, bare=True), weights)
    config = config.for_any_device()
    if matmul_precision is not None:
        config = config.replaced("model", matmul_precision=matmul_precision)
    network = make_network(config, make_process(config))
    return functools.partial(jax.jit(make_apply(network)), params), config
