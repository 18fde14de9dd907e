"""A small autoencoder, the latents made with it, and encode_latents.py as a process."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ledit_jax.config import AutoencoderConfig
from ledit_jax.data.latents import Latents
from ledit_jax.models.autoencoders import Autoencoder, abstract_vae
from ledit_jax.models.dcae_config import DCAEConfig
from ledit_jax.models.vae import AutoencoderKL, VAEConfig
from ledit_jax.models.vae_encoder import VAEEncoder
from ledit_jax.weights import export_vae, load_vae, vae_description

ROOT = Path(__file__).parents[2]
VAE = VAEConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4)
DCAE = DCAEConfig(
    latent_channels=4,
    block_out_channels=(8, 8),
    encoder_layers=(1, 1),
    decoder_layers=(1, 1),
    attention_levels=1,
    head_dim=8,
)
AUTOENCODER = AutoencoderConfig(kind="sd", downsample=2)
BAD = 17
SIZES = dict(scale=0.18215, batch_size=4, shard_size=6)


def write_vae(folder, seed):
    model = AutoencoderKL(VAE, nnx.Rngs(seed))
    export_vae(folder, nnx.to_pure_dict(nnx.state(model, nnx.Param)), VAE)
    return str(folder)


def make_dcae() -> Autoencoder:
    """Of random weights, which no program needs to be compiled for."""
    graphdef, like = abstract_vae(DCAE)
    rng = np.random.default_rng(0)
    return nnx.merge(graphdef, jax.tree.map(lambda p: jnp.asarray(0.3 * rng.standard_normal(p.shape), p.dtype), like))


def open_encoder(path):
    return VAEEncoder(path, *vae_description(path), functools.partial(load_vae, path))


def open_latents(folder):
    return Latents(str(folder), 16, 12, AUTOENCODER)


def command_line(data, vae, output) -> list[str]:
    """For `script_runs`."""
    sizes = ["--height=16", "--width=12", "--batch_size=4", "--shard_size=6", "--max_bad_share=0.05"]
    return ["encode_latents.py", f"--path={data.path}", f"--vae={vae}", f"--output={output}", *sizes]
