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


def network_name(config: AutoencoderSizes) -> str:
    """The key of `CONFIGS`."""
    return next(name for name, cls in CONFIGS.items() if cls is type(config))


@functools.cache
def abstract_vae(config: AutoencoderSizes) -> tuple[Any, Any]:
    """(graphdef, shapes of the parameters by the modules' names), as `nnx.split` gives them; allocates nothing."""
    return nnx.split(nnx.eval_shape(lambda: _NETWORKS[type(config)](config, nnx.Rngs(0))), nnx.Param)
