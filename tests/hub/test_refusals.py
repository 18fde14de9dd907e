"""Names, repositories and networks that do not give a model: one line each, and nothing half-made."""

import functools
import json
import shutil
import sys

import numpy as np
import pytest
from hub.conftest import REPO, left_in
from PIL import Image
from script_runs import assert_one_line, run

from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.hub import resolve


def refused(name, **options) -> str:
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        resolve(name, bare=True, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_and_rights(hub, pipeline_folder, tmp_path):
    assert "hf://no/such is neither a folder here nor a model of the hub" in refused("no/such")
    assert "is no model of the hub: write hf://org/name" in refused("hf://facebook")
    assert "is no model of the hub" in refused(f"hf://{REPO}/../x")
    assert "has no revision v9: give a branch" in refused(REPO, revision="v9")
    assert "names the revision v1, and revision=v2" in refused(f"{REPO}@v1", revision="v2")
    assert "revision=v2 is for a model of the hub" in refused(str(tmp_path), revision="v2")
    hub.add("gated/dit", pipeline_folder, is_gated=True)
    assert "hf://gated/dit is gated: accept its terms" in refused("gated/dit")
    assert "gated" in refused("gated/dit", token="wrong")
    assert not left_in(tmp_path / "cache")
    assert resolve("gated/dit", token="right", bare=True)


def test_a_pickle_without_torch(hub, pipeline_folder, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    shutil.copy(pipeline_folder / "transformer" / "config.json", tmp_path / "bin")
    (tmp_path / "bin" / "diffusion_pytorch_model.bin").write_bytes(b"PK and more")
    hub.add("other/bin", tmp_path / "bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pickles need torch: pip install torch, or give .safetensors" in refused("other/bin")


def test_repositories_that_are_no_dit(hub, tmp_path):
    for name, config in {"UNet2D": {"_class_name": "UNet2D"}, "GPT2": {"architectures": ["GPT2"]}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        (tmp_path / name / "model.safetensors").write_bytes(bytes(10))
        hub.add(f"other/{name}", tmp_path / name)
        assert f"hf://other/{name} is a {name}, and no DiT" in refused(f"other/{name}")
    assert not any(line.startswith("GET") and line.endswith("model.safetensors") for line in hub.asked)
    (tmp_path / "empty" / "unet").mkdir(parents=True)
    (tmp_path / "empty" / "unet" / "x.bin").write_bytes(b"")
    hub.add("other/empty", tmp_path / "empty")
    assert "holds no weights of a DiT, an autoencoder or CLIP" in refused("other/empty")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "diffusion_pytorch_model.safetensors").write_bytes(bytes(10))
    hub.add("other/damaged", tmp_path / "damaged")
    assert "hf://other/damaged cannot be read: " in refused("other/damaged")
    assert [name for name in left_in(tmp_path / "cache" / "assets") if not name.startswith("other--")] == ["ledit_jax"]


def test_downloads_that_end_early(hub, tmp_path):
    """A file that is cut short, and a disk that is full; then the same command goes on."""
    theirs = hub.repositories[REPO]
    theirs.cut = "transformer/diffusion_pytorch_model.safetensors"
    assert "was not fetched to its end" in refused(REPO)
    theirs.cut = ""
    hub.asked.clear()
    environment = dict(HF_ENDPOINT=hub.address, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="0")
    environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    flags = ["--num_steps=1", "--class_labels=3", f"--out={tmp_path / 'x.png'}", "--height=64", "--width=128"]
    sample = functools.partial(run, "sample.py", *flags, **environment)
    full = sample(f"--checkpoint=hf://{REPO}", most_bytes=20_000)
    assert full.returncode == 1 and "MiB are free there): make room" in full.stderr.splitlines()[-1], full.stderr
    assert not any(len(name) == 40 for name in left_in(tmp_path / "home" / "assets"))
    done = sample(f"--checkpoint=hf://{REPO}")
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(tmp_path / "x.png")).shape[:2] == (68, 132)
    assert_one_line(sample("--checkpoint=hf://no/such"), "hf://no/such is neither a folder here nor a model")


def test_no_network(hub, tmp_path):
    hub.close()
    assert "is not in the cache, and the hub does not answer (ConnectError" in refused(REPO)
    assert "does not answer (local_files_only)" in refused(REPO, local_files_only=True)
    assert not left_in(tmp_path / "cache")
