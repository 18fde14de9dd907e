"""Small DiTs of the PyTorch oracle, the checkpoints made of their files, and how the two are compared."""

import jax
import numpy as np
import safetensors.torch
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from oracles import ledit_params, torch_dit
from tiny import network_of

from ledit_jax.config import model_preset
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.models.functional import abstract_params
from ledit_jax.weights import load_weights

SMALL = dict(depth=2, width=32, num_heads=4, num_classes=10)
GRID = (4, 4)
T, Y = np.array([0, 500, 999]), np.array([0, 3, 10])


def small(family="DiT", **fields):
    return model_preset(f"{family}-S/2", **(SMALL | fields))


def oracle(config, seed=0, grid=GRID):
    peer = torch_dit.torch_peer(config, grid=grid).eval()
    return torch_dit.randomise_(peer, seed)


def convert(state, folder, suffix=".pt", **options):
    """The checkpoint made of what torch.save or safetensors writes."""
    path = folder / f"weights{suffix}"
    safetensors.torch.save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    convert_to_checkpoint(path, folder / "checkpoint", **({"num_heads": 4} | options))
    return folder / "checkpoint"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run_torch(model, x, t=T, y=Y):
    """A PyTorch model on NHWC arrays."""
    with torch.no_grad():
        out = model(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(t), torch.from_numpy(y))
    return (out if isinstance(out, torch.Tensor) else out.sample).permute(0, 2, 3, 1).numpy()


def relative_error(got, want):
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


def assert_params_are(checkpoint, peer):
    """The checkpoint holds exactly the tensors of the oracle, in the layout that the oracle's own file defines."""
    params, config, _ = load_weights(checkpoint)
    want = ledit_params.to_ledit_params(peer, abstract_params(network_of(config)))
    jax.tree.map(np.testing.assert_array_equal, params, want)


def diffusers_dit(**settings):
    """diffusers' DiT with random parameters; its blocks each hold a copy of the one timestep and label embedding."""
    sizes = dict(num_attention_heads=4, attention_head_dim=8, num_layers=2, sample_size=8, num_embeds_ada_norm=10)
    model = DiTTransformer2DModel(in_channels=4, out_channels=8, **(sizes | settings)).eval()
    torch_dit.randomise_(model, seed=0)
    first, *rest = model.transformer_blocks
    for block in rest:
        block.norm1.emb.load_state_dict(first.norm1.emb.state_dict())
    return model


def vae_file(folder, channels=16, groups=8, levels=2):
    """A small autoencoder as diffusers writes it; no shape tells the number of groups."""
    torch.manual_seed(0)
    blocks = dict(down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels)
    vae = AutoencoderKL(block_out_channels=(channels,) * levels, layers_per_block=1, norm_num_groups=groups, **blocks)
    vae.eval().save_pretrained(folder)
    return vae
