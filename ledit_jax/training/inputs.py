"""What has to hold before a run begins: its latents and captions are its encoders', and its model fits."""

from typing import Any

import numpy as np
from jax.sharding import Mesh

from ledit_jax.config import Config
from ledit_jax.data import Source
from ledit_jax.data.latent_metadata import read_metadata
from ledit_jax.diffusion import make_process
from ledit_jax.errors import ConfigError
from ledit_jax.hub import resolve
from ledit_jax.models import Network, Params, make_network
from ledit_jax.models.condition import are_same_states
from ledit_jax.parallel.memory import check_fits, device_memory
from ledit_jax.parallel.processes import gather
from ledit_jax.weights import text_fingerprint, vae_description


def check_latents(config: Config) -> None:
    """Raises ConfigError for latents that another autoencoder made than `autoencoder.checkpoint`, and for captions'
    states of another encoder than `text.checkpoint`.

    Without a checkpoint in the config there is nothing to compare; scale, channels and sizes are checked as the
    latents are opened.
    """
    if config.data.source != "latents":
        return
    metadata, place = read_metadata(config.data.path), f"data.path={config.data.path!r}"
    if checkpoint := config.autoencoder.checkpoint:
        _, vae_id = vae_description(resolve(checkpoint))
        if vae_id != metadata.vae_id:
            raise ConfigError(
                f"autoencoder.checkpoint={checkpoint!r} ({vae_id}) is not what made the latents in {place}: that was "
                f"{metadata.vae!r} ({metadata.vae_id or 'no fingerprint'})"
            )
    if metadata.text_id and (checkpoint := config.text.checkpoint):
        text_id = text_fingerprint(resolve(checkpoint))
        if text_id != metadata.text_id:
            raise ConfigError(
                f"text.checkpoint={checkpoint!r} ({text_id}) is not what made the states of captions in {place}: that "
                f"was {metadata.text!r} ({metadata.text_id})"
            )


def check_model_fits(config: Config, mesh: Mesh) -> None:
    """Raises ConfigError, with an estimate, for weights, activations or attention's logits that all devices together
    cannot hold.

    Weights are there four times in float32: with their average, and the optimizer's two moments.
    """
    model, data, train = config.model, config.data, config.train
    memory = device_memory(mesh.devices.flatten().tolist())
    what = (
        f"model.depth={model.depth}, model.width={model.width}, model.mlp_ratio={model.mlp_ratio:g} and "
        f"model.num_classes={model.num_classes}"
    )
    check_fits(what, 4 * 4 * config.least_parameters, memory, "use a smaller model, or more devices")
    what = (
        f"train.batch_size={train.batch_size} with data.image_height={data.image_height} and "
        f"data.image_width={data.image_width}"
    )
    advice, images = "use smaller images or batches, or more devices", train.batch_size // train.accumulation_steps
    check_fits(what, config.least_activations(images), memory, f"{advice}, or train.accumulation_steps")
    network = make_network(config, make_process(config))
    logits = network.least_logits(images, config.num_tokens(), mesh.devices.flat[0].platform)
    check_fits(f"attention's logits for {what}", logits, memory, f"{advice}, or train.accumulation_steps")


def data_constants(network: Network, source: Source) -> dict[str, np.ndarray]:
    """What the data says of the network's frozen parameters, such as the empty caption's states: values by name."""
    if not network.frozen:
        return {}
    constants: dict[str, Any] = network.condition.constants(source)
    return constants


def unset_constants(params: Params, constants: dict[str, np.ndarray], whose: str) -> dict[str, np.ndarray]:
    """Those of the constants that the parameters do not have yet: they are zero, as converted weights leave them.

    whose: the place of the parameters, for messages. Raises ConfigError where they have others than the data. All
    processes of a run call it.
    """
    unset = {}
    for name, value in constants.items():
        found = gather(params[name])
        if not found.any():
            unset[name] = value
        elif not are_same_states(found, value):
            raise ConfigError(
                f"{whose} has other states of the empty caption ({name}) than the data: its captions are of another "
                "encoder, encode them with the one that it was trained with"
            )
    return unset
