"""Models of the hub by name, from a server in a thread: fetched, converted once, and drawn from."""

import shutil

import jax
import numpy as np
import pytest
import torch
from convert.dit_files import assert_params_are, oracle, small
from hub.conftest import REPO
from script_runs import Script

from ledit_jax import LEDiTPipeline, load_model
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.errors import CheckpointError, OutputError
from ledit_jax.hub import dit_files, resolve
from ledit_jax.training.init_from import inherit_about, init_from_checkpoint
from ledit_jax.weights import fingerprint, load_weights, vae_description
from ledit_jax.weights.about import load_about


def test_from_a_name_to_weights(hub, pipeline_folder, tmp_path):
    """The weights of the folder converted by hand; then once more from the cache, with the hub gone."""
    pipe = LEDiTPipeline.from_pretrained(REPO)
    convert_to_checkpoint(pipeline_folder, tmp_path / "model")
    convert_to_checkpoint(pipeline_folder / "vae", tmp_path / "vae")
    jax.tree.map(np.testing.assert_array_equal, pipe.params, load_weights(tmp_path / "model")[0])
    assert vae_description(pipe.about.autoencoder) == vae_description(tmp_path / "vae")
    assert pipe.about.class_names == tuple(f"class {i}" for i in range(10))
    assert (pipe.about.license, pipe.about.origin[:-40]) == ("cc-by-nc-4.0", f"hf://{REPO}@")
    fetched = {line.rpartition("/")[2] for line in hub.asked if line.startswith("GET facebook")}
    assert fetched == {"model_index.json", "config.json", "README.md", "diffusion_pytorch_model.safetensors"}

    count = len(hub.asked)
    folder = resolve(f"hf://{REPO}")
    assert len(hub.asked) == count + 1  # which commit is it now?
    hub.close()
    shutil.rmtree(tmp_path / "cache" / "hub")  # what was downloaded is needed no more
    assert resolve(REPO, bare=True) == resolve(REPO, bare=True, local_files_only=True) == folder
    model, config = load_model(REPO)
    jax.tree.map(np.testing.assert_array_equal, model.args[0], pipe.params)

    _, report = init_from_checkpoint(f"hf://{REPO}", config, jax.random.key(0))
    assert not report.dropped and not report.initialised
    inherit_about(f"hf://{REPO}", tmp_path / "model", config)  # a run's checkpoints say what they come from
    about = load_about(tmp_path / "model")
    assert (about.license, about.autoencoder) == ("cc-by-nc-4.0", f"{pipe.about.origin}/vae")


def test_revisions_folders_and_what_is_downloaded_already(hub, pipeline_folder, tmp_path):
    other = shutil.copytree(pipeline_folder, tmp_path / "other")
    (other / "model_index.json").write_text('{"id2label": {"0": "another"}}')
    theirs = hub.repositories[REPO]
    theirs.commits["a" * 40], theirs.refs["refs/pr/1"] = other, "a" * 40
    pinned = resolve(f"hf://{REPO}@refs%2Fpr%2F1")
    assert load_about(pinned).class_names == ("another",)
    count = len(hub.asked)
    assert resolve(REPO, revision="a" * 40, bare=True) == pinned  # a commit never changes: nobody is asked
    assert len(hub.asked) == count
    vae = resolve(f"hf://{REPO}/vae")
    assert vae_description(vae)[1] and vae != resolve(f"hf://{REPO}/vae", cache_dir=tmp_path / "elsewhere")

    shutil.rmtree(tmp_path / "cache" / "assets")
    hub.close()
    assert resolve(f"hf://{REPO}/vae") == vae  # converted anew from what was downloaded
    with pytest.raises(CheckpointError, match="is in the cache only in part .no weights., and the hub does not answer"):
        resolve(f"hf://{REPO}")


def test_saved_and_read_back(hub, tmp_path):
    """As a folder, and from the hub again; its autoencoder is diffusers', its card a hub's."""
    from diffusers import AutoencoderKL
    from huggingface_hub import ModelCard

    pipe = LEDiTPipeline.from_pretrained(REPO)
    pipe.save_pretrained(tmp_path / "mine")
    with pytest.raises(OutputError, match="exists already"):
        pipe.save_pretrained(tmp_path / "mine")
    assert AutoencoderKL.from_pretrained(tmp_path / "mine" / "vae").config.scaling_factor == 0.18215
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    assert card.data.license == "cc-by-nc-4.0" and card.data.library_name == "ledit_jax"
    assert "No commercial use." in card.text
    hub.add("me/mine", tmp_path / "mine")
    for name in (tmp_path / "mine", "me/mine"):
        again = LEDiTPipeline.from_pretrained(name)
        assert (again.config, again.about.class_names) == (pipe.config, pipe.about.class_names)
        assert (again.about.license, again.about.origin) == (pipe.about.license, pipe.about.origin)
        jax.tree.map(np.testing.assert_array_equal, again.params, pipe.params)
        assert vae_description(again.about.autoencoder) == vae_description(pipe.about.autoencoder)

    pipe.save_pretrained(tmp_path / "short", vae=f"hf://{REPO}/vae", license="other")
    short = LEDiTPipeline.from_pretrained(tmp_path / "short")
    assert not (tmp_path / "short" / "vae").exists() and short.about.license == "other"
    assert fingerprint(short.vae.state) == fingerprint(pipe.vae.state)


def test_dit_s_own_file_by_its_name(hub, tmp_path, monkeypatch):
    """The connection is lost in the middle; the next call fetches the rest."""
    name, peer = "DiT-XL-2-256x256.pt", oracle(small(num_heads=6, width=384, depth=1))
    (tmp_path / "files").mkdir()
    torch.save(peer.state_dict(), tmp_path / "files" / name)
    hub.add("dit/files", tmp_path / "files", hung_up=name)
    monkeypatch.setattr(dit_files, "ADDRESS", f"{hub.address}/dit/files/resolve/main")
    with pytest.raises(CheckpointError, match=r"of [\d,]+ bytes came: run it again, it goes on where it stopped"):
        resolve(name)
    with pytest.raises(CheckpointError, match=r"is [\d,]+ bytes, and 2,700,611,775 are needed"):
        resolve(name)
    monkeypatch.setattr(dit_files, "BYTES", {})
    monkeypatch.setattr(dit_files, "LEAST_BYTES", 1)
    with pytest.raises(CheckpointError, match="came"):
        resolve(name)
    folder = resolve(name)
    assert_params_are(folder, peer)
    about = load_about(folder)
    assert (about.license, about.autoencoder) == ("cc-by-nc-4.0", "hf://stabilityai/sd-vae-ft-ema")
    assert len(about.class_names) == 1000 and about.class_names[207] == "golden retriever"
    assert resolve(name, local_files_only=True) == folder
    assert [path.name for path in (tmp_path / "cache" / "assets" / "ledit_jax" / "dit").glob("[!.]*")] == [name[:-3]]


_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["diffusers"] = None
from ledit_jax.hub import resolve
print(resolve(sys.argv[1]))
"""


def test_two_processes_at_once_without_torch(hub, tmp_path):
    (tmp_path / "both.py").write_text(_WITHOUT_TORCH)
    environment = dict(HF_ENDPOINT=hub.address, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="0")
    both = [Script([tmp_path / "both.py", f"hf://{REPO}"], **environment) for _ in range(2)]
    done = [script.finish() for script in both]
    assert [result.returncode for result in done] == [0, 0], done
    assert done[0].stdout == done[1].stdout != ""
    assert sum("convert: 100%" in result.stderr for result in done) == 1
    assert [line.rpartition("/")[2] for line in hub.asked if line.startswith("GET")].count("config.json") == 2
