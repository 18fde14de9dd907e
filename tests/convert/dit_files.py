"""Small DiTs of the PyTorch oracle, the checkpoints made of their files, and how the two are compared."""

import jax
import numpy as np
import safetensors.torch
import torch
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
