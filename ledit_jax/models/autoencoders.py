"""The autoencoders of latents. All have `config`, `encode` to a mean and a log-variance, and `decode`.

A config has `image_channels`, `latent_channels`, `block_out_channels`, `downsample` and `levels_in_slices`.
"""

import functools
from typing import Any

from flax import nnx

from ledit_jax.models.dcae import AutoencoderDC
from ledit_jax.models.dcae_config import DCAEConfig
from ledit_jax.models.vae import AutoencoderKL
from ledit_jax.models.vae_config import VAEConfig

Autoencoder = AutoencoderKL | AutoencoderDC
AutoencoderSizes = VAEConfig | DCAEConfig
CONFIGS = {"kl": VAEConfig, "dc": DCAEConfig}
"""By what a checkpoint calls the network."""
_NETWORKS = {VAEConfig: AutoencoderKL, DCAEConfig: AutoencoderDC}
PUBLISHED = {
    (8, 4): ("Stable Diffusion's", VAEConfig()),
    (8, 16): ("Stable Diffusion 3's", VAEConfig(latent_channels=16, quant_convs=False)),
    (16, 32): (
        "VA-VAE",
        VAEConfig(latent_channels=32, block_out_channels=(128, 128, 256, 256, 512), level_attention=True),
    ),
    (32, 32): ("DC-AE", DCAEConfig()),
}
"""Name and sizes of what is known, by (pixels per side of a cell, channels); VA-VAE's as LightningDiT configures it."""


def name_of(config: AutoencoderSizes) -> str:
    """As people call it, with its shape: "DC-AE (f32c32)"; "an autoencoder (f2c4)" where no other has its sizes."""
    name = next((name for name, sizes in PUBLISHED.values() if sizes == config), "an autoencoder")
    return f"{name} (f{config.downsample}c{config.latent_channels})"


def network_name(config: AutoencoderSizes) -> str:
    """The key of `CONFIGS`."""
    return next(name for name, cls in CONFIGS.items() if cls is type(config))


@functools.cache
def abstract_vae(config: AutoencoderSizes) -> tuple[Any, Any]:
    """(graphdef, shapes of the parameters by the modules' names), as `nnx.split` gives them; allocates nothing."""
    return nnx.split(nnx.eval_shape(lambda: _NETWORKS[type(config)](config, nnx.Rngs(0))), nnx.Param)
