"""The autoencoder's name tables, against diffusers' own names and a renaming to CompVis written here by hand."""

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from flax import nnx
from models.random_vae import CONFIGS, fresh_vae

from ledit_jax.convert.tables import (
    CONV,
    LINEAR,
    POINTWISE,
    Row,
    apply_table,
    check_table,
    flatten_params,
    invert_table,
    param_shapes,
    unflatten_params,
)
from ledit_jax.convert.vae import (
    vae_config_from_shapes,
    vae_param_shapes,
    vae_params_from_torch,
    vae_params_to_torch,
    vae_table,
)
from ledit_jax.errors import CheckpointError, ConversionError
from ledit_jax.models.autoencoders import abstract_vae
from ledit_jax.models.vae import VAEConfig

CONFIG = VAEConfig(block_out_channels=(8, 16, 24, 32), layers_per_block=1, norm_num_groups=4)


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = param_shapes(fresh_vae(CONFIG).state_dict())
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def to_old(name: str) -> str:
    for new, old in ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")):
        name = name.replace(new, old)
    return name


def to_compvis(name: str, levels: int = 4) -> str:
    """diffusers' name -> the original one, part by part."""
    parts = name.split(".")
    if len(parts) < 3:
        return name  # quant_conv, post_quant_conv
    side, part, *rest = parts
    if part == "down_blocks":
        prefix = [side, "down", rest[0]]
    elif part == "up_blocks":
        prefix = [side, "up", str(levels - 1 - int(rest[0]))]
    elif part == "mid_block" and rest[0] == "resnets":
        leaf = "nin_shortcut" if rest[2] == "conv_shortcut" else rest[2]
        return ".".join([side, "mid", f"block_{int(rest[1]) + 1}", leaf, rest[-1]])
    elif part == "mid_block":
        leaf = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}[rest[2]]
        return ".".join([side, "mid", "attn_1", leaf, rest[-1]])
    else:
        return ".".join([side, {"conv_norm_out": "norm_out"}.get(part, part), *rest])
    if rest[1] == "attentions":
        leaf = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}[rest[3]]
        return ".".join([*prefix, "attn", rest[2], leaf, rest[-1]])
    if rest[1] == "resnets":
        leaf = "nin_shortcut" if rest[3] == "conv_shortcut" else rest[3]
        return ".".join([*prefix, "block", rest[2], leaf, rest[-1]])
    return ".".join([*prefix, {"downsamplers": "downsample", "upsamplers": "upsample"}[rest[1]], "conv", rest[-1]])


def as_compvis(state: dict[str, np.ndarray], levels: int = 4) -> dict[str, np.ndarray]:
    pointwise = {name: a[:, :, None, None] if a.ndim == 2 else a for name, a in state.items()}
    return {to_compvis(name, levels): a for name, a in pointwise.items()}


def assert_bitwise_equal(ours, theirs):
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        assert ours[name].shape == array.shape, name
        assert ours[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_there_and_back_bit_for_bit(state, dtype):
    state = {name: a.astype(dtype) for name, a in state.items()}
    state["quant_conv.bias"][0] = np.nan
    params = vae_params_from_torch(state)
    assert_bitwise_equal(vae_params_to_torch(params), state)
    assert all(a.flags.c_contiguous for a in vae_params_to_torch(params).values())


def test_back_through_a_model(state):
    graphdef, like = abstract_vae(CONFIG)
    params = unflatten_params(vae_params_from_torch(state), like)
    assert jax.tree.structure(params) == jax.tree.structure(like)
    flat = flatten_params(nnx.split(nnx.merge(graphdef, params), nnx.Param)[1])
    assert_bitwise_equal(vae_params_to_torch(flat), state)


def test_axes_of_each_kind(state):
    params = vae_params_from_torch(state)
    conv = state["decoder.up_blocks.1.upsamplers.0.conv.weight"]
    np.testing.assert_array_equal(params["decoder.levels.1.upsample.kernel"], np.einsum("oihw->hwio", conv))
    query = state["encoder.mid_block.attentions.0.to_q.weight"]
    np.testing.assert_array_equal(params["encoder.mid.attention.query.kernel"], query.T)
    norm = state["encoder.conv_norm_out.weight"]
    np.testing.assert_array_equal(params["encoder.norm_out.scale"], norm)


def test_all_layouts_give_the_same_parameters(state):
    expected = vae_params_from_torch(state)
    compvis = as_compvis(state)
    whole = {"first_stage_model." + name: a for name, a in compvis.items()}
    others = {"model.diffusion_model.out.2.bias": np.zeros(4), "cond_stage_model.x": np.zeros(1), "betas": np.zeros(9)}
    loss = {"loss.logvar": np.zeros(()), "loss.discriminator.main.0.weight": np.zeros((4, 3, 4, 4))}
    for other in ({to_old(name): a for name, a in state.items()}, compvis, compvis | loss, whole | others):
        assert vae_config_from_shapes(other, norm_num_groups=4) == CONFIG
        assert_bitwise_equal(vae_params_from_torch(other), expected)


def test_va_vae_is_ldm_s_with_attention_and_what_it_was_aligned_with():
    config, rng = CONFIGS["two levels, as VA-VAE's"], np.random.default_rng(0)
    shapes = param_shapes(fresh_vae(config).state_dict())
    state = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    extra = {"foundation_model.model.norm.weight": np.ones(4), "linear_proj.weight": np.ones((4, 6, 1, 1))}
    theirs = as_compvis(state, levels=2) | extra
    assert {"encoder.down.1.attn.0.q.weight", "decoder.up.1.attn.1.proj_out.bias"} < set(theirs)
    assert vae_config_from_shapes(theirs, norm_num_groups=4) == config
    assert_bitwise_equal(vae_params_from_torch(theirs), vae_params_from_torch(state))


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        CONFIGS["two levels, as VA-VAE's"],
        VAEConfig(block_out_channels=(32, 64), layers_per_block=2, norm_num_groups=32, latent_channels=16),
        VAEConfig(block_out_channels=(8,), layers_per_block=3, norm_num_groups=8),
    ],
)
def test_config_from_shapes(config):
    state = fresh_vae(config).state_dict()
    assert vae_config_from_shapes(state, config.norm_num_groups) == config
    assert vae_param_shapes(config) == param_shapes(vae_params_from_torch({n: t.numpy() for n, t in state.items()}))


def test_stable_diffusion_by_shapes_alone():
    with torch.device("meta"):
        state = fresh_vae(VAEConfig()).state_dict()
    shapes = param_shapes(state)
    assert vae_config_from_shapes(state) == VAEConfig()
    ours = vae_param_shapes(VAEConfig())
    assert sum(int(np.prod(shape)) for shape in ours.values()) == 83_653_863
    check_table(vae_table(ours, "diffusers"), shapes, ours)
    check_table(vae_table(ours, "diffusers_old"), {to_old(n): s for n, s in shapes.items()}, ours)
    compvis = {to_compvis(n): (*s, 1, 1) if len(s) == 2 else s for n, s in shapes.items()}
    # A few names as they stand in the public checkpoint, so that both renamings cannot be wrong alike.
    assert compvis["decoder.up.0.block.0.nin_shortcut.weight"] == (128, 256, 1, 1)
    assert compvis["decoder.up.1.upsample.conv.weight"] == (256, 256, 3, 3)
    assert compvis["encoder.down.2.downsample.conv.bias"] == (512,)
    assert compvis["encoder.mid.attn_1.proj_out.weight"] == (512, 512, 1, 1)
    check_table(vae_table(ours, "compvis"), compvis, ours)


def test_every_fault_is_in_one_error(state):
    state = dict(state)
    del state["encoder.down_blocks.0.resnets.0.conv1.weight"]
    del state["post_quant_conv.bias"]
    state["extra.weight"] = np.zeros(3)
    state["decoder.conv_in.bias"] = np.zeros(7, np.float32)
    state["encoder.down_blocks.2.resnets.0.conv1.weight"] = np.zeros((5, 16, 3, 3), np.float32)
    with pytest.raises(ConversionError) as caught:
        vae_params_from_torch(state)
    error = caught.value
    assert isinstance(error, CheckpointError)
    assert set(error.missing) == {"encoder.down_blocks.0.resnets.0.conv1.weight", "post_quant_conv.bias"}
    assert error.unmapped == ("extra.weight",)
    assert set(error.wrong_shape) == {
        ("decoder.conv_in.bias", (7,), (32,)),
        ("encoder.down_blocks.2.resnets.0.conv1.weight", (5, 16, 3, 3), (24, 16, 3, 3)),
    }
    message = str(error)
    assert "\n" not in message
    for part in (*error.missing, "extra.weight", "decoder.conv_in.bias is (7,) and must be (32,)"):
        assert part in message


def test_not_an_autoencoder():
    with pytest.raises(ConversionError, match=r"encoder\.down_blocks"):
        vae_params_from_torch({"blocks.0.attn.qkv.weight": np.zeros((6, 2))})


def test_linear_where_compvis_has_convolutions(state):
    compvis = {to_compvis(name): a for name, a in state.items()}  # attention left as [out, in]
    with pytest.raises(ConversionError) as caught:
        vae_params_from_torch(compvis)
    assert ("encoder.mid.attn_1.q.weight", (32, 32), (32, 32, 1, 1)) in caught.value.wrong_shape
    assert len(caught.value.wrong_shape) == 8


def test_stacked_and_fused_rows():
    rng = np.random.default_rng(1)
    names = [[f"blocks.{i}.attn.{part}.weight" for part in "qkv"] for i in range(3)]
    state = {name: rng.standard_normal((4, 2)).astype(np.float32) for layer in names for name in layer}
    state |= {f"blocks.{i}.norm.bias": rng.standard_normal(5).astype(np.float32) for i in range(3)}
    table = (
        Row("blocks.qkv.kernel", tuple(map(tuple, names)), LINEAR, stacked=True),
        Row("blocks.norm.bias", tuple((f"blocks.{i}.norm.bias",) for i in range(3)), stacked=True),
    )
    shapes = {"blocks.qkv.kernel": (3, 2, 12), "blocks.norm.bias": (3, 5)}
    params = apply_table(table, state, shapes)
    assert param_shapes(params) == shapes
    for i in range(3):
        np.testing.assert_array_equal(params["blocks.norm.bias"][i], state[f"blocks.{i}.norm.bias"])
        for j, part in enumerate("qkv"):
            ours = params["blocks.qkv.kernel"][i, :, 4 * j : 4 * j + 4]
            np.testing.assert_array_equal(ours, state[f"blocks.{i}.attn.{part}.weight"].T)
    assert_bitwise_equal(invert_table(table, params), state)

    with pytest.raises(ConversionError) as caught:
        apply_table(table, state | {"blocks.2.attn.k.weight": np.zeros((4, 3), np.float32)}, shapes)
    assert caught.value.wrong_shape == (("blocks.2.attn.k.weight", (4, 3), (4, 2)),)


@pytest.mark.parametrize(("axes", "shape"), [(LINEAR, (3, 5)), (CONV, (4, 3, 2, 5)), (POINTWISE, (3, 5, 1, 1))])
def test_axes_are_inverses(axes, shape):
    tensor = np.random.default_rng(2).standard_normal(shape)
    np.testing.assert_array_equal(axes.to_torch(axes.to_ours(tensor)), tensor)


def test_table_and_parameters_must_name_the_same_paths(state):
    params = vae_params_from_torch(state)
    table = vae_table(param_shapes(params), "diffusers")
    with pytest.raises(ConversionError, match=r"other\.kernel"):
        invert_table(table, params | {"other.kernel": np.zeros(1)})
    like = abstract_vae(CONFIG)[1]
    del params["quant_conv.bias"]
    with pytest.raises(ConversionError, match=r"missing .*quant_conv\.bias"):
        invert_table(table, params)
    with pytest.raises(ConversionError, match=r"missing .*quant_conv\.bias"):
        unflatten_params(params, like)
