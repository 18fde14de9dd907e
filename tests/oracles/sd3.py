"""diffusers' SD3Transformer2DModel without pooled text, which is an MMDiT, with the scan's mask where it is asked for;
and our network with its weights."""

from unittest import mock

import numpy as np
import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import JointAttnProcessor2_0
from oracles import torch_dit, torch_scans

from ledit_jax.config import Config, DataConfig, DiffusionConfig, SampleConfig, TextConfig, TrainConfig, model_preset
from ledit_jax.convert.mmdit import mmdit_table
from ledit_jax.convert.tables import apply_table, flatten_params, param_shapes, unflatten_params
from ledit_jax.diffusion import make_process
from ledit_jax.models import abstract_params, make_apply, make_network

LENGTH, TEXT_WIDTH, DEPTH = 5, 24, 4
TIMES = np.array([0.1, 0.75, 1.0], np.float32)


def their_model(qk_norm=None):
    """Random parameters; the pooled text counts for nothing, and positions are those of a 4 x 4 grid."""
    model = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=DEPTH, attention_head_dim=8,
        num_attention_heads=3, joint_attention_dim=TEXT_WIDTH, caption_projection_dim=24, pooled_projection_dim=8,
        pos_embed_max_size=4, qk_norm=qk_norm,
    ).eval()  # fmt: skip
    table = model.pos_embed.pos_embed.clone()
    torch_dit.randomise_(model, seed=0)
    model.pos_embed.pos_embed.copy_(table)
    for parameter in model.time_text_embed.text_embedder.parameters():
        parameter.data.zero_()
    return model


def our_config(family, **model):
    sizes = dict(depth=DEPTH, width=24, num_heads=3, conv="none") | model
    return Config(
        model=model_preset(f"{family}-S/2", **sizes),
        text=TextConfig(encoder="clip", length=LENGTH, width=TEXT_WIDTH),
        diffusion=DiffusionConfig(objective="flow"),
        data=DataConfig(image_height=8, image_width=8, image_channels=4),
        train=TrainConfig(dilation_probability=0.0),
        sample=SampleConfig(sampler="euler"),
    )


def our_peer(model, config):
    """(apply, parameters) of our network with their weights."""
    network = make_network(config, make_process(config))
    like = abstract_params(network)
    state = {name: tensor.detach().numpy() for name, tensor in named_parameters(model)}
    empty = np.random.default_rng(3).normal(size=(LENGTH, TEXT_WIDTH)).astype(np.float32)
    return make_apply(network), unflatten_params(as_ours(state, like) | {"empty_caption": empty}, like)


def named_parameters(model):
    """Those that count."""
    return [(name, tensor) for name, tensor in model.named_parameters() if ".text_embedder." not in name]


def as_ours(state, like):
    """Their tensors, of parameters or of gradients, by our names."""
    shapes = {path: shape for path, shape in param_shapes(flatten_params(like)).items() if path != "empty_caption"}
    return apply_table(mmdit_table(shapes, "sd3", 2), state, shapes)


class Scanned(JointAttnProcessor2_0):
    """The processor with a mask for its fused call; it has image tokens first."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def __call__(self, *args, **kwargs):
        real = torch.nn.functional.scaled_dot_product_attention
        masked = lambda *qkv, **options: real(*qkv, **(options | {"attn_mask": self.mask}))  # noqa: E731
        with mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", masked):
            return super().__call__(*args, **kwargs)


def scan_with_text(scan, h, w):
    mask = torch.ones(h * w + LENGTH, h * w + LENGTH, dtype=torch.bool)
    mask[: h * w, : h * w] = torch.as_tensor(np.asarray(torch_scans.scan_mask(scan, h, w)))
    return mask


def inputs(height, width, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, height, width, 4)).astype(np.float32)
    states = rng.normal(size=(3, LENGTH, TEXT_WIDTH)).astype(np.float32)
    return x, states


def run_theirs(model, x, states):
    out = model(
        torch.as_tensor(x).permute(0, 3, 1, 2),
        torch.tensor(states),
        torch.zeros(3, 8),
        torch.tensor(TIMES),
    ).sample
    return out.permute(0, 2, 3, 1)
