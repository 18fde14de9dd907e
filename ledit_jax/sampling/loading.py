"""A checkpoint as a function of arrays, and the autoencoder that belongs to it."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax

from ledit_jax.config import Config
from ledit_jax.diffusion import make_process
from ledit_jax.hub import resolve
from ledit_jax.models import make_apply, make_network
from ledit_jax.models.autoencoders import AutoencoderSizes
from ledit_jax.weights import load_weights, vae_sizes
from ledit_jax.weights.about import About, load_about


def load_model(
    checkpoint: str | Path, weights: str = "ema", matmul_precision: str | None = None
) -> tuple[Callable[..., jax.Array], Config]:
    """(model, config) of a checkpoint, or of a model of the hub, org/name or org/name@revision; weights is "ema" or
    "params".

    matmul_precision: as `ModelConfig` has it, by default what the config says; "highest" to check a port.

    `model(x, t, y)` takes x float [B, H, W, C], times [B] (0 .. 999 for DiT's diffusion, 0 .. `flow.time_scale` for a
    flow) and labels int [B]. It returns what the process predicts: for DiT's, [B, H, W, 2C], noise and then the
    variance's interpolation; for a flow, the velocity [B, H, W, C].
    """
    params, config, _ = load_weights(resolve(checkpoint, bare=True), weights)
    config = config.for_any_device()
    if matmul_precision is not None:
        config = config.replaced("model", matmul_precision=matmul_precision)
    network = make_network(config, make_process(config))
    return functools.partial(jax.jit(make_apply(network)), params), config


def find_vae(config: Config, about: About, vae: str | Path | None = None) -> str:
    """The autoencoder's checkpoint, fetched where it is a hub's; "" for none.

    vae: by default, for a model of latents, what its config names, or else what is named beside the model.
    """
    if config.autoencoder.kind != "none":
        vae = vae or config.autoencoder.checkpoint or about.autoencoder
    return resolve(vae or "")


def find_vae_sizes(
    config: Config, checkpoint: str | Path | None = None, vae: str | Path | None = None
) -> AutoencoderSizes | None:
    """Those of `find_vae`, with no array read; None for none. checkpoint: the model's. Raises CheckpointError."""
    found = find_vae(config, load_about(checkpoint) if checkpoint else About(), vae)
    return vae_sizes(found) if found else None
