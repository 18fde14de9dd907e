"""DiT's and LEDiT's weights through files and back, against the PyTorch oracle."""

import argparse
import collections
import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.torch
import torch
from convert.dit_files import GRID, T, Y, assert_params_are, convert, noise, oracle, relative_error, run_torch, small
from oracles import torch_dit, torch_scans
from tiny import network_of

from ledit_jax.config import Config
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.convert.tables import flatten_params
from ledit_jax.convert.write import convert_to_torch
from ledit_jax.errors import ConfigError
from ledit_jax.models.functional import abstract_params, make_apply
from ledit_jax.sampling.loading import load_model
from ledit_jax.training.init_from import init_from_checkpoint
from ledit_jax.weights import load_weights


def flat_training_file():
    state = {f"ema.{name}": t for name, t in oracle(small()).state_dict().items()}
    return state | {f"model.{name}": t for name, t in oracle(small(), seed=1).state_dict().items()}


def training_file():
    """As facebookresearch/DiT's train.py writes it."""
    peer = oracle(small(), seed=1)
    opt = torch.optim.AdamW(peer.parameters())
    for parameter in peer.parameters():
        parameter.grad = torch.ones_like(parameter)
    opt.step()
    args = argparse.Namespace(model="DiT-S/2", global_batch_size=256)
    model, ema = (oracle(small(), seed).state_dict() for seed in (1, 0))
    return {"model": model, "ema": ema, "opt": opt.state_dict(), "args": args}


def test_state_dict(tmp_path):
    peer = oracle(small())
    checkpoint = convert(peer.state_dict(), tmp_path)
    assert_params_are(checkpoint, peer)
    model, config = load_model(checkpoint)
    assert config.model == small()
    assert (config.autoencoder.kind, config.data.image_height, config.latent_shape()) == ("sd", 64, (8, 8, 4))
    x = noise(3, 4, 12, 4)
    assert relative_error(model(x, T, Y), run_torch(peer, x)) < 1e-4


@pytest.mark.parametrize(
    "make, suffix, weights, seed",
    [
        (training_file, ".pt", "ema", 0),
        (training_file, ".pt", "model", 1),
        (flat_training_file, ".safetensors", "ema", 0),
    ],
)
def test_training_file(tmp_path, make, suffix, weights, seed):
    assert_params_are(convert(make(), tmp_path, suffix, weights=weights), oracle(small(), seed))


def test_training_file_without_the_weights_asked_for(tmp_path):
    state = {"model": oracle(small()).state_dict()}
    with pytest.raises(ConfigError, match="weights=ema, and the training file .* holds only model"):
        convert(state, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_file_of_torch_before_1_6(tmp_path):
    peer, path = oracle(small()), tmp_path / "old.pt"
    torch.save(peer.state_dict(), path, _use_new_zipfile_serialization=False)
    convert_to_checkpoint(path, tmp_path / "checkpoint", num_heads=4)
    assert_params_are(tmp_path / "checkpoint", peer)


@pytest.mark.parametrize("dtype, suffix", [(torch.bfloat16, ".safetensors"), (torch.float16, ".pt")])
def test_narrow_types_widen_exactly(tmp_path, dtype, suffix):
    peer = oracle(small())
    for parameter in peer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype).float()
    narrow = {name: t if name == "pos_embed" else t.to(dtype) for name, t in peer.state_dict().items()}
    assert_params_are(convert(narrow, tmp_path, suffix), peer)


def test_pixel_model(tmp_path):
    config = small(patch_size=4, num_classes=3, mlp_ratio=2.0)
    peer = torch_dit.torch_peer(config, in_channels=1, grid=(5, 5))
    converted = load_weights(convert(peer.state_dict(), tmp_path))[1]
    assert converted.model == config
    assert (converted.autoencoder.kind, converted.latent_shape()) == ("none", (20, 20, 1))


def test_the_log_says_that_a_dit_s_file_might_be_a_sit_s(tmp_path, caplog):
    with caplog.at_level("INFO", logger="ledit_jax"):
        checkpoint = convert(oracle(small()).state_dict(), tmp_path)
        assert "a SiT has the same names and shapes, and predicts a velocity" in caplog.text
        caplog.clear()
        convert_to_torch(checkpoint, tmp_path / "ours.safetensors")
        convert_to_checkpoint(tmp_path / "ours.safetensors", tmp_path / "again")
        assert "SiT" not in caplog.text  # one of ours says what it is


FAMILIES = {
    "DiT": small(),
    "NoPE": small("NoPE"),
    "LEDiT": small("LEDiT"),
    "refined": small("LEDiT", block_order="single_ca", scan="b", post_norm=True, causal_from_timestep=500.0),
    "depthwise": small("LEDiT", conv="depthwise", patch_size=4),
    "diffusers": small(timestep_frequency_shift=1.0),
}


@pytest.mark.parametrize("name, suffix", list(zip(FAMILIES, [".pt", ".safetensors"] * 3, strict=True)))
def test_there_and_back_bit_for_bit(tmp_path, name, suffix):
    config, state = FAMILIES[name], oracle(FAMILIES[name]).state_dict()
    state["final_layer.linear.bias"][:2] = torch.tensor([1e-42, -0.0])
    described = Config(model=config, train=dataclasses.replace(Config().train, dilation_probability=0.0)).to_dict()
    described["data"] |= {"image_height": 64, "image_width": 64}
    described["autoencoder"]["kind"] = "sd"
    tensors = collections.OrderedDict(state)
    text = json.dumps({"config": described, "step": 7})
    if suffix == ".pt":
        tensors._metadata = {"ledit_jax": text}
        torch.save(tensors, tmp_path / f"a{suffix}")
    else:
        safetensors.torch.save_file(state, tmp_path / f"a{suffix}", metadata={"ledit_jax": text})
    convert_to_checkpoint(tmp_path / f"a{suffix}", tmp_path / "b")
    assert load_weights(tmp_path / "b")[1].model == config and load_weights(tmp_path / "b")[2] == 7
    convert_to_torch(tmp_path / "b", tmp_path / f"c{suffix}")
    load = torch.load if suffix == ".pt" else safetensors.torch.load_file
    back = load(tmp_path / f"c{suffix}")
    assert set(back) == set(state)
    for key, tensor in state.items():
        assert torch.equal(back[key].view(torch.int32), tensor.view(torch.int32)), key
    peer = torch_dit.torch_peer(config, grid=GRID)
    peer.load_state_dict(back)  # strict: the metadata is in nobody's way
    convert_to_checkpoint(tmp_path / f"c{suffix}", tmp_path / "d")
    (first, *described), (second, *again) = load_weights(tmp_path / "b"), load_weights(tmp_path / "d")
    assert described == again
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_raw_weights_of_a_run_are_written_on_request(tmp_path):
    from tiny import tiny_config

    from ledit_jax.training.loop import train

    state = train(tiny_config(train=dict(num_steps=2)), tmp_path / "run")
    written = {}
    for weights in ("ema", "model"):
        convert_to_torch(tmp_path / "run", tmp_path / f"{weights}.pt", weights=weights)
        written[weights] = torch.load(tmp_path / f"{weights}.pt")["x_embedder.proj.bias"].numpy()
    np.testing.assert_array_equal(written["model"], state.params["patch_embed"]["bias"])
    np.testing.assert_array_equal(written["ema"], state.ema["patch_embed"]["bias"])
    assert (written["model"] != written["ema"]).any()


def test_ledit_of_someone_else_s(tmp_path):
    peer = oracle(small("LEDiT", post_norm=True))
    checkpoint = convert(peer.state_dict(), tmp_path)
    assert_params_are(checkpoint, peer)
    assert load_weights(checkpoint)[1].model == small("LEDiT", post_norm=True)


@pytest.fixture(scope="module")
def dit_checkpoint(tmp_path_factory):
    return convert(oracle(small()).state_dict(), tmp_path_factory.mktemp("dit"))


def start_of_fine_tuning(checkpoint, **fields):
    """(parameters, report, output on noise) of a LEDiT that starts from the checkpoint."""
    config = dataclasses.replace(load_weights(checkpoint)[1], model=small("LEDiT", **fields))
    params, report = init_from_checkpoint(checkpoint, config, jax.random.key(0))
    return report, jax.jit(make_apply(network_of(config)))(params, noise(3, 8, 8, 4), T, Y)


@pytest.mark.parametrize("order", ["sa", "sa_ca"])
def test_fine_tuning_starts_at_the_dit_without_positions(dit_checkpoint, order):
    """With plain attention that is the whole difference; with a causal scan, the scan is the only other one."""
    report, ours = start_of_fine_tuning(dit_checkpoint, block_order=order)
    peer = oracle(small())
    x = noise(3, 8, 8, 4)
    with_positions = run_torch(peer, x)
    peer.position, peer.kinds, peer.scan = "none", torch_scans.block_kinds(order, 2), "d"
    without = run_torch(peer, x)
    assert relative_error(ours, without) < 1e-5
    assert relative_error(with_positions, without) > 1e-2
    assert set(report.initialised) == {"conv/bias (32,)", "conv/kernel (3, 3, 32, 32)"} and report.dropped == ()
    every = flatten_params(abstract_params(network_of(load_weights(dit_checkpoint)[1])))
    assert {name.replace("/", ".") for name in report.loaded} == set(every)
    assert any("positional table" in note for note in report.notes)
