"""Names and shapes alone: DiT-XL/2 without its weights, presets, and a place for every parameter."""

import numpy as np
import torch
from convert.dit_files import oracle, small
from diffusers import DiTTransformer2DModel
from flax import nnx
from oracles import ledit_params, torch_dit
from tiny import network_of

from ledit_jax.config import model_preset
from ledit_jax.convert.dit import dit_config, dit_layout, dit_table, position_shapes
from ledit_jax.convert.tables import check_table, flatten_params, param_shapes
from ledit_jax.models.functional import abstract_params


def model_shapes(config):
    return param_shapes(flatten_params(abstract_params(network_of(config))))


def shapes_of(make):
    with torch.device("meta"):
        return param_shapes(make().state_dict())


def check_by_shapes(shapes, layout, settings):
    """The config, once every name has a place and a shape."""
    assert dit_layout(shapes) == layout
    config = dit_config(shapes, layout, settings)
    ours = model_shapes(config)
    check_table(dit_table(ours, layout, config.model.patch_size), shapes, ours, position_shapes(config, shapes, layout))
    return config


def test_xl_2_by_shapes_alone():
    sizes = dict(depth=28, width=1152, num_heads=16, num_classes=1000)
    shapes = shapes_of(lambda: torch_dit.LEDiT(**sizes, position="sincos", conv="none"))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 675_129_632
    config = check_by_shapes(shapes, "dit", {})
    assert config.model == model_preset("DiT-XL/2") and config.data.image_height == 256
    assert sum(int(np.prod(shape)) for shape in model_shapes(config).values()) == 675_129_632 - 256 * 1152


def test_xl_2_of_diffusers_by_shapes_alone():
    shapes = shapes_of(lambda: DiTTransformer2DModel(out_channels=8, sample_size=64))
    own = {
        name: shape for name, shape in shapes.items() if ".emb." not in name or name.startswith("transformer_blocks.0.")
    }
    assert len(shapes) - len(own) == 27 * 5
    config = check_by_shapes(own, "diffusers", {"num_attention_heads": 16, "sample_size": 64})
    assert config.model == model_preset("DiT-XL/2", timestep_frequency_shift=1.0) and config.data.image_height == 512


def test_preset_by_shapes_and_name():
    """The number of heads follows from the width; a NoPE needs its name, for its file looks like a DiT's cut short, and
    a LEDiT* its own: which blocks are causal leaves no trace."""
    for name in ("DiT-S/8", "DiT-B/4", "DiT-L/2", "LEDiT-B/2", "LEDiT*-B/2", "NoPE-S/2"):
        preset = model_preset(name, depth=2)
        shapes = shapes_of(lambda preset=preset: nn_peer(preset))
        config = dit_config(shapes, "dit", {}, name if name.startswith(("NoPE", "LEDiT*")) else None)
        assert config.model == preset


def nn_peer(config):
    names = "depth", "width", "num_heads", "patch_size", "num_classes", "position", "block_order", "conv", "post_norm"
    return torch_dit.LEDiT(**{name: getattr(config, name) for name in names}, grid=(8, 8))


def test_table_names_every_parameter_of_the_oracle():
    """And the oracle's own reading of the layouts agrees with the table's, leaf by leaf."""
    config = small("LEDiT", post_norm=True)
    peer = oracle(config)
    flat = flatten_params(nnx.to_pure_dict(nnx.state(ledit_params.ledit_peer(peer, config), nnx.Param)))
    state = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
    for row in dit_table(param_shapes(flat), "dit", 2):
        np.testing.assert_array_equal(row.join(state), flat[row.path], row.path)
        for name, tensor in row.split(np.asarray(flat[row.path])).items():
            np.testing.assert_array_equal(tensor, state[name], name)
