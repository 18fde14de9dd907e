"""MMDiT's files: REPA's and diffusers' of one network become the same checkpoint, come back bit for bit, and start a
LEMMDiT."""

import jax
import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import SD3Transformer2DModel
from oracles.sd3 import DEPTH, our_config, our_peer, their_model
from tiny import network_of, tiny_mmdit

from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.convert.write import convert_to_torch
from ledit_jax.convert.write_diffusers import convert_to_diffusers
from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.models import init_params
from ledit_jax.training.init_from import init_from_checkpoint
from ledit_jax.weights import export_weights, load_weights


def to_repa_names(state):
    """diffusers' state dict under REPA's names, written out beside its models/mmdit.py."""
    swap = lambda a: torch.cat(a.chunk(2)[::-1])  # noqa: E731 - REPA has (shift, scale)
    out = {"pos_embed": state["pos_embed.pos_embed"]}
    for kind in ("weight", "bias"):
        out |= {
            f"x_embedder.proj.{kind}": state[f"pos_embed.proj.{kind}"],
            f"t_embedder.mlp.0.{kind}": state[f"time_text_embed.timestep_embedder.linear_1.{kind}"],
            f"t_embedder.mlp.2.{kind}": state[f"time_text_embed.timestep_embedder.linear_2.{kind}"],
            f"context_embedder.{kind}": state[f"context_embedder.{kind}"],
            f"final_layer.adaLN_modulation.1.{kind}": swap(state[f"norm_out.linear.{kind}"]),
            f"final_layer.linear.{kind}": state[f"proj_out.{kind}"],
        }
        for i in range(DEPTH):
            old, (text, image) = f"transformer_blocks.{i}", (f"joint_blocks.{i}.{s}_block" for s in ("context", "x"))
            parts = {
                f"{image}.adaLN_modulation.1": "norm1.linear",
                f"{image}.attn.proj": "attn.to_out.0",
                f"{image}.mlp.fc1": "ff.net.0.proj",
                f"{image}.mlp.fc2": "ff.net.2",
                f"{text}.adaLN_modulation.1": "norm1_context.linear",
            }
            if i < DEPTH - 1:
                parts |= {
                    f"{text}.attn.proj": "attn.to_add_out",
                    f"{text}.mlp.fc1": "ff_context.net.0.proj",
                    f"{text}.mlp.fc2": "ff_context.net.2",
                }
            out |= {f"{new}.{kind}": state[f"{old}.{name}.{kind}"] for new, name in parts.items()}
            if i == DEPTH - 1:
                out[f"{text}.adaLN_modulation.1.{kind}"] = swap(out[f"{text}.adaLN_modulation.1.{kind}"])
            for new, names in ((image, ("to_q", "to_k", "to_v")), (text, ("add_q_proj", "add_k_proj", "add_v_proj"))):
                out[f"{new}.attn.qkv.{kind}"] = torch.cat([state[f"{old}.attn.{name}.{kind}"] for name in names])
    return {name: tensor.contiguous() for name, tensor in out.items()}


@pytest.fixture(scope="module")
def theirs():
    return their_model()


def assert_is(checkpoint, model):
    """The weights that parity is proven with; the empty caption is not known, and so zero."""
    params, config, _ = load_weights(checkpoint)
    want = our_peer(model, our_config("MMDiT"))[1]
    assert params["empty_caption"].shape == (77, 24) and not params["empty_caption"].any()
    jax.tree.map(np.testing.assert_array_equal, params | {"empty_caption": 0}, want | {"empty_caption": 0})
    model = config.model
    assert (model.network, model.position, model.num_heads, config.num_tokens()) == ("mmdit", "sincos", 3, 16)
    assert (config.diffusion.objective, config.sample.sampler, config.text.width) == ("flow", "euler", 24)
    return config


def test_repa(theirs, tmp_path, caplog):
    """A training file, with projector heads; back come its own names and bits."""
    state = to_repa_names(theirs.state_dict())
    heads = {"projectors.0.0.weight": torch.zeros(3, 24), "projectors.0.0.bias": torch.zeros(3)}
    torch.save({"ema": state | heads, "model": {}, "opt": {}}, tmp_path / "0150000.pt")
    with caplog.at_level("INFO"):
        convert_to_checkpoint(tmp_path / "0150000.pt", tmp_path / "c", num_heads=3)
    assert "dropped 2 tensors of REPA's projector heads" in caplog.text
    assert "is a MMDiT (training file, its weights 'ema'): depth 4, width 24, 3 heads" in caplog.text
    config = assert_is(tmp_path / "c", theirs)
    assert config.flow.time_scale == 1
    lemmdit = config.replaced("model", position="none", conv="dense", block_order="sa_ca")
    _, report = init_from_checkpoint(tmp_path / "c", lemmdit, jax.random.key(0))
    assert report.initialised == ("conv/bias (24,)", "conv/kernel (3, 3, 24, 24)") and not report.dropped
    assert "dropped: the sin/cos positional table (not a parameter)" in report.notes
    convert_to_torch(tmp_path / "c", tmp_path / "back.safetensors")
    back = safetensors.torch.load_file(tmp_path / "back.safetensors")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in back.keys() - {"pos_embed"})


def test_diffusers(theirs, tmp_path, caplog):
    theirs.save_pretrained(tmp_path / "pipeline" / "transformer")
    with caplog.at_level("INFO"):
        convert_to_checkpoint(tmp_path / "pipeline", tmp_path / "c")
        convert_to_diffusers(tmp_path / "c", tmp_path / "back")
    assert assert_is(tmp_path / "c", theirs).flow.time_scale == 1000
    assert "feed it zeros as pooled text, and 1000 t as the timestep" in caplog.text
    back = SD3Transformer2DModel.from_pretrained(tmp_path / "back").state_dict()
    want = theirs.state_dict()
    assert back.keys() == want.keys()
    exact = {name for name in want if ".text_embedder." not in name and name != "pos_embed.pos_embed"}
    assert all(torch.equal(back[name], want[name]) for name in exact)
    assert not any(tensor.any() for name, tensor in back.items() if ".text_embedder." in name)
    torch.testing.assert_close(back["pos_embed.pos_embed"], want["pos_embed.pos_embed"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["LEMMDiT", "RoPE-MMDiT"])
def test_ours_there_and_back(tmp_path, family):
    """With the convolution, the empty caption and the settings that no tensor tells."""
    config = tiny_mmdit(family, model=dict(qk_norm="rms"))
    params = jax.tree.map(lambda a: a + 1.5, init_params(network_of(config), jax.random.key(0)))
    export_weights(tmp_path / "a", params, config, 7)
    convert_to_torch(tmp_path / "a", tmp_path / "x.pt")
    convert_to_checkpoint(tmp_path / "x.pt", tmp_path / "b")
    again, config_again, step = load_weights(tmp_path / "b")
    assert (config_again, step) == (config, 7)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    with pytest.raises(ConfigError, match="SD3Transformer2DModel has no model.(conv=dense|position=rope): give to=tor"):
        convert_to_diffusers(tmp_path / "a", tmp_path / "d")


def test_what_does_not_fit_is_one_line(theirs, tmp_path):
    state = to_repa_names(theirs.state_dict())
    pooled = dict(theirs.state_dict())
    pooled["time_text_embed.text_embedder.linear_2.bias"] = torch.ones(24)
    cases = [
        (state, dict(objective="noise"), "is an MMDiT, which learns a flow"),
        (state, dict(frequency_shift=1.0), "timestep_frequency_shift is for a DiT"),
        (state, dict(model="DiT-S/2"), "model=DiT-S/2 has network=ledit, and the file mmdit"),
        (state | {"pos_embed": state["pos_embed"] + 1}, {}, "pos_embed is not DiT's sin/cos table"),
        (state | {"register": torch.zeros(1)}, {}, r"not part of this model .1.: register"),
        (pooled, {}, "text_embedder.linear_2.bias is not zero, so this network is told pooled text"),
    ]
    for tensors, options, says in cases:
        torch.save(tensors, tmp_path / "x.pt")
        with pytest.raises((ConfigError, CheckpointError), match=says) as error:
            convert_to_checkpoint(tmp_path / "x.pt", tmp_path / "c", **({"num_heads": 3} | options))
        assert "\n" not in str(error.value) and not (tmp_path / "c").exists()
