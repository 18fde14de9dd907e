"""convert_torch_weights.py as a user meets it: what it writes, and what it refuses."""

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from convert.dit_files import vae_file
from oracles import torch_dit
from script_runs import run
from tiny import network_of, tiny_config

from ledit_jax.config import model_preset
from ledit_jax.convert import read
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.convert.write import convert_to_torch
from ledit_jax.errors import CheckpointError, ConfigError, ConversionError, OutputError
from ledit_jax.models.functional import init_params
from ledit_jax.sampling.loading import load_model
from ledit_jax.weights import export_weights, load_vae

ROOT = Path(__file__).parents[2]
DIT = model_preset("DiT-S/2", depth=1, width=32, num_heads=4, num_classes=10)


@pytest.fixture(scope="module")
def state():
    return torch_dit.torch_peer(DIT, grid=(4, 4)).state_dict()


@pytest.fixture(scope="module")
def dit_file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("dit") / "dit.pt"
    torch.save({"ema": state, "args": argparse.Namespace(model="DiT-S/2")}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(dit_file):
    convert_to_checkpoint(dit_file, dit_file.with_name("checkpoint"), num_heads=4)
    return dit_file.with_name("checkpoint")


_LOAD_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["safetensors"] = sys.modules["diffusers"] = None
import jax.numpy as jnp
import numpy as np
from ledit_jax import load_model
model, config = load_model(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[3], model(x, np.array([0, 999]), np.array([3, 10])))
"""


def test_a_training_file_end_to_end(tmp_path, state, dit_file):
    result = run("convert_torch_weights.py", f"--input={dit_file}", f"--output={tmp_path / 'c'}", "--num_heads=4")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"wrote {tmp_path / 'c'}\n"
    assert "is a DiT (training file, its weights 'ema'): depth 1, width 32, 4 heads" in result.stderr
    assert "100%" in result.stderr and "Traceback" not in result.stderr and "Warning" not in result.stderr

    x = np.random.default_rng(0).normal(size=(2, 8, 12, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = [tmp_path / "c", tmp_path / "x.npy", tmp_path / "y.npy"]
    subprocess.run([sys.executable, "-c", _LOAD_WITHOUT_TORCH, *arguments], cwd=ROOT, check=True, timeout=300)
    peer = torch_dit.torch_peer(DIT, grid=(4, 4)).eval()
    peer.load_state_dict(state)
    with torch.no_grad():
        want = peer(torch.from_numpy(x).permute(0, 3, 1, 2), torch.tensor([0, 999]), torch.tensor([3, 10]))
    want = want.permute(0, 2, 3, 1).numpy()
    assert np.abs(np.load(tmp_path / "y.npy") - want).max() < 1e-4 * np.abs(want).max()


def cut(path, source):
    path.write_bytes(source.read_bytes()[:-200])


def damaged_inputs(folder, state, dit_file):
    """(input, options, part of the message) for each kind of bad input."""
    cut(folder / "cut.pt", dit_file)
    safetensors.torch.save_file(state, folder / "whole.safetensors")
    cut(folder / "cut.safetensors", folder / "whole.safetensors")
    (folder / "whole.safetensors").unlink()
    (folder / "notes.pt").write_text("hello")
    (folder / "empty.pt").write_bytes(b"")
    with zipfile.ZipFile(folder / "images.pt", "w") as archive:
        archive.writestr("a.png", b"")
    torch.save({"layer1.weight": torch.zeros(2, 2)}, folder / "other.pt")
    (folder / "empty").mkdir()
    vae_file(folder / "vae")
    is_damaged = "is damaged, cut short or no PyTorch file"
    return [
        ("nothing.pt", {}, "does not exist"),
        ("cut.pt", {}, is_damaged),
        ("cut.safetensors", {}, is_damaged),
        ("notes.pt", {}, is_damaged),
        ("empty.pt", {}, is_damaged),
        ("images.pt", {}, is_damaged),
        ("other.pt", {}, "holds no DiT, LEDiT, MMDiT, Stable Diffusion autoencoder or CLIP: its 1 tensors are"),
        ("empty", {}, "is a folder that holds no weights"),
        (
            "vae",
            {"model": "DiT-XL/2"},
            "and model, num_heads, objective and timestep_frequency_shift are for a",
        ),
    ]


def test_bad_input_leaves_nothing_behind(tmp_path, state, dit_file, checkpoint):
    cases = [*damaged_inputs(tmp_path, state, dit_file), (checkpoint, {}, "is a checkpoint of ours: give to=torch")]
    before = sorted(tmp_path.iterdir())
    for name, options, message in cases:
        with pytest.raises(ConfigError if options else CheckpointError) as caught:
            convert_to_checkpoint(tmp_path / name, tmp_path / "c" / "d", **options)
        assert message in str(caught.value) and "\n" not in str(caught.value), name
        assert sorted(tmp_path.iterdir()) == before


def test_vae_there_and_back(tmp_path):
    theirs = vae_file(tmp_path / "vae")
    convert_to_checkpoint(tmp_path / "vae", tmp_path / "ours")
    x = np.random.default_rng(0).normal(size=(1, 8, 12, 3)).astype(np.float32)
    with torch.no_grad():
        want = theirs.encode(torch.from_numpy(x).permute(0, 3, 1, 2)).latent_dist.mean.permute(0, 2, 3, 1).numpy()
    got = np.asarray(load_vae(tmp_path / "ours").encode(jnp.asarray(x))[0])
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()
    for suffix, load in ((".pt", torch.load), (".safetensors", safetensors.torch.load_file)):
        convert_to_torch(tmp_path / "ours", tmp_path / f"back{suffix}")
        back, expected = load(tmp_path / f"back{suffix}"), theirs.state_dict()
        assert set(back) == set(expected) and all(torch.equal(back[name], expected[name]) for name in back)
        convert_to_checkpoint(tmp_path / f"back{suffix}", tmp_path / suffix)  # the groups have travelled along
        assert load_vae(tmp_path / suffix).config == load_vae(tmp_path / "ours").config


def test_vae_inside_a_whole_checkpoint(tmp_path):
    theirs = vae_file(tmp_path / "vae", channels=32, groups=32)
    state = {"first_stage_model." + name: tensor for name, tensor in theirs.state_dict().items()}
    state |= {"model.diffusion_model.out.2.bias": torch.zeros(4), "model_ema.decay": torch.zeros(())}
    torch.save({"state_dict": state, "global_step": 7}, tmp_path / "sd.ckpt")
    convert_to_checkpoint(tmp_path / "sd.ckpt", tmp_path / "c")
    convert_to_torch(tmp_path / "c", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert all(torch.equal(back.pop(name), tensor) for name, tensor in theirs.state_dict().items()) and not back


def test_an_output_that_exists(tmp_path, dit_file, checkpoint):
    occupied = tmp_path / "run"
    (occupied / "checkpoints").mkdir(parents=True)
    with pytest.raises(OutputError, match="exists already: choose another place, or give overwrite"):
        convert_to_checkpoint(dit_file, checkpoint, num_heads=4)
    with pytest.raises(OutputError, match="is a folder with other things in it"):
        convert_to_checkpoint(dit_file, occupied, num_heads=4, overwrite=True)
    photos = tmp_path / "photos"
    (photos / "2024").mkdir(parents=True)
    (photos / "2024" / "photo.jpg").write_text("precious")
    with pytest.raises(OutputError, match="a folder with other things in it"):
        convert_to_checkpoint(dit_file, photos, num_heads=4, overwrite=True)
    assert (photos / "2024" / "photo.jpg").read_text() == "precious"
    with pytest.raises(OutputError, match="must end in .pt or .safetensors"):
        convert_to_torch(checkpoint, tmp_path / "dit.onnx")
    with pytest.raises(CheckpointError, match="does not exist"):
        convert_to_torch(tmp_path / "nothing", tmp_path / "dit.pt")
    (tmp_path / "dit.pt").write_text("old")
    convert_to_torch(checkpoint, tmp_path / "dit.pt", overwrite=True)
    assert "pos_embed" in torch.load(tmp_path / "dit.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dit.pt", "photos", "run"]


def test_networks_that_pytorch_has_no_names_for(tmp_path):
    config = tiny_config("FiTBlock")
    export_weights(tmp_path / "fit", init_params(network_of(config), jax.random.key(0)), config, step=1)
    with pytest.raises(ConversionError, match="not part of this model .*blocks") as caught:
        convert_to_torch(tmp_path / "fit", tmp_path / "fit.pt")
    assert any("mlp.gate" in name for name in caught.value.unmapped)


def test_overwriting_a_converted_checkpoint(tmp_path, state, dit_file):
    convert_to_checkpoint(dit_file, tmp_path / "c", num_heads=4)
    torch.save(state | {"x_embedder.proj.bias": torch.full((32,), 7.0)}, tmp_path / "other.pt")
    convert_to_checkpoint(tmp_path / "other.pt", tmp_path / "c", num_heads=4, overwrite=True)
    assert float(load_model(tmp_path / "c")[0].args[0]["patch_embed"]["bias"][3]) == 7.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "other.pt"]


@pytest.mark.parametrize(
    "error, caught", [(OSError(28, "No space left on device"), OutputError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_write_that_fails_leaves_nothing_behind(tmp_path, dit_file, monkeypatch, error, caught):
    def export(folder, *_):
        (folder / "0" / "ema").mkdir(parents=True)
        raise error

    monkeypatch.setattr(read, "export_weights", export)
    with pytest.raises(caught) as info:
        convert_to_checkpoint(dit_file, tmp_path / "c", num_heads=4)
    assert not isinstance(error, OSError) or "cannot be written (No space left on device; " in str(info.value)
    assert list(tmp_path.iterdir()) == []
