"""diffusers' AutoencoderKL with every parameter random, and ours with the same parameters."""

import functools

import jax
import torch
from diffusers import AutoencoderKL as TorchVAE
from flax import nnx

from ledit_jax.convert.tables import unflatten_params
from ledit_jax.convert.vae import vae_params_from_torch
from ledit_jax.models import vae_slices
from ledit_jax.models.autoencoders import abstract_vae
from ledit_jax.models.vae import AutoencoderKL, VAEConfig

CONFIGS = {
    "two levels, as SD3's": VAEConfig(
        latent_channels=16, block_out_channels=(32, 64), layers_per_block=2, norm_num_groups=8, quant_convs=False
    ),
    "two levels, as VA-VAE's": VAEConfig(
        latent_channels=6, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, level_attention=True
    ),
    "four levels": VAEConfig(block_out_channels=(8, 16, 24, 32), layers_per_block=1, norm_num_groups=4),
}
METHODS = {
    "encode": AutoencoderKL.encode,
    "decode": AutoencoderKL.decode,
    "by image": vae_slices.decode_by_image,
    "slices": vae_slices.decode_in_slices,
}
SMALL = VAEConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)


def fresh_vae(config: VAEConfig) -> TorchVAE:
    """diffusers' model as it initialises it."""
    levels, attends = len(config.block_out_channels), "Attn" if config.level_attention else ""
    return TorchVAE(
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        latent_channels=config.latent_channels,
        use_quant_conv=config.quant_convs,
        use_post_quant_conv=config.quant_convs,
        down_block_types=("DownEncoderBlock2D",) * (levels - 1) + (f"{attends}DownEncoderBlock2D",),
        up_block_types=(f"{attends}UpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
    )


def torch_vae(config: VAEConfig) -> TorchVAE:
    """The same with random weights, scaled to keep activations near 1; no norm or bias keeps its 1 or 0."""
    model = fresh_vae(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                gain = 3.0 if ".to_q." in name else 1.0  # attention that is far from uniform
                p.copy_(gain * noise * p[0].numel() ** -0.5)
            else:
                p.copy_(0.3 * noise + ("norm" in name and name.endswith("weight")))
    return model


def ours(model: TorchVAE, config: VAEConfig) -> AutoencoderKL:
    graphdef, like = abstract_vae(config)
    flat = vae_params_from_torch({name: tensor.numpy() for name, tensor in model.state_dict().items()})
    return nnx.merge(graphdef, unflatten_params(flat, like))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _call(graphdef, method: str, args: tuple, params, x):
    return METHODS[method](nnx.merge(graphdef, params), x, *args)


def run(model: AutoencoderKL, method: str, x, *args):
    """The functional use that the class documents."""
    graphdef, params = nnx.split(model, nnx.Param)
    return _call(graphdef, method, args, params, x)
