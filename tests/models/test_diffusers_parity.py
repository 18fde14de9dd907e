"""The DiT setting against diffusers' DiTTransformer2DModel, and which of our fields its constants need.

Its `norm_eps`, 1e-5 by default, reaches the norm before the MLP alone: the other two are fixed at 1e-6. Beside token
variances near 1 the difference is below 1e-5 of the output, so our one `norm_eps` of 1e-6 serves both.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel
from flax import nnx
from oracles import ledit_params, torch_dit
from tiny import build_ledit

from ledit_jax.config import model_preset

DEPTH = 3


def their_model(norm_eps):
    """diffusers' DiT with random parameters; its blocks each hold a copy of the one timestep and label embedding."""
    model = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=DEPTH, sample_size=16,
        num_embeds_ada_norm=10, norm_eps=norm_eps,
    ).eval()  # fmt: skip
    torch_dit.randomise_(model, seed=0)
    for block in model.transformer_blocks[1:]:
        block.norm1.emb = model.transformer_blocks[0].norm1.emb
    return model


def to_dit_names(state):
    """diffusers' state dict under facebookresearch/DiT's names."""
    embedding = "transformer_blocks.0.norm1.emb"
    out = {"y_embedder.embedding_table.weight": state[f"{embedding}.class_embedder.embedding_table.weight"]}
    for kind in ("weight", "bias"):
        pairs = {
            "x_embedder.proj": "pos_embed.proj",
            "t_embedder.mlp.0": f"{embedding}.timestep_embedder.linear_1",
            "t_embedder.mlp.2": f"{embedding}.timestep_embedder.linear_2",
            "final_layer.adaLN_modulation.1": "proj_out_1",
            "final_layer.linear": "proj_out_2",
        }
        for i in range(DEPTH):
            theirs, ours = f"transformer_blocks.{i}", f"blocks.{i}"
            pairs |= {
                f"{ours}.attn.proj": f"{theirs}.attn1.to_out.0",
                f"{ours}.mlp.fc1": f"{theirs}.ff.net.0.proj",
                f"{ours}.mlp.fc2": f"{theirs}.ff.net.2",
                f"{ours}.adaLN_modulation.1": f"{theirs}.norm1.linear",
            }
            qkv = [state[f"{theirs}.attn1.to_{name}.{kind}"] for name in "qkv"]
            out[f"{ours}.attn.qkv.{kind}"] = torch.cat(qkv)
        out |= {f"{ours}.{kind}": state[f"{theirs}.{kind}"] for ours, theirs in pairs.items()}
    return out


@pytest.mark.parametrize("norm_eps", [1e-5, 1e-6])
def test_forward_is_diffusers_with_its_frequencies(norm_eps):
    theirs = their_model(norm_eps)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 16, 16)).astype(np.float32)
    t, y = np.array([0, 500, 999]), np.array([0, 3, 10])
    with torch.no_grad():
        want = theirs(*map(torch.from_numpy, (x, t, y))).sample.permute(0, 2, 3, 1).numpy()

    inputs = [jnp.asarray(a) for a in (x.transpose(0, 2, 3, 1), t, y)]
    tensors = to_dit_names(theirs.state_dict())
    errors = {}
    for shift in (0.0, 1.0):
        config = model_preset(
            "DiT-S/2", depth=DEPTH, width=32, num_heads=4, num_classes=10, timestep_frequency_shift=shift
        )
        graphdef, template = nnx.split(nnx.eval_shape(lambda: build_ledit(config, 4, nnx.Rngs(0))))  # noqa: B023
        params = ledit_params.to_ledit_tree(tensors, template)
        got = jax.jit(lambda params: nnx.merge(graphdef, params)(*inputs))(params)  # noqa: B023
        errors[shift] = np.abs(got - want).max() / np.abs(want).max()
    assert errors[1.0] < 1e-4
    assert errors[0.0] > 1e-2
