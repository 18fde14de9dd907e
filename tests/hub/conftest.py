"""A hub of this machine with a small pipeline of diffusers' on it, and caches that are empty."""

import json
import os

import pytest
from convert.dit_files import diffusers_dit, vae_file
from hub.hub_server import serving

REPO = "facebook/DiT-tiny"


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    """DiTPipeline's folder: a DiT of latents at 8x8, its autoencoder, a scheduler and the names of ten classes."""
    folder = tmp_path_factory.mktemp("pipeline")
    diffusers_dit().save_pretrained(folder / "transformer")
    vae_file(folder / "vae", channels=8, groups=4, levels=4)
    (folder / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"the same, as a pickle")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    labels = {str(i): f"class {i}" for i in range(10)}
    parts = {"transformer": ["diffusers", "DiTTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
    index = {"_class_name": "DiTPipeline", "id2label": labels, **parts}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    return folder


@pytest.fixture
def hub(pipeline_folder, monkeypatch, tmp_path):
    """The server, which huggingface_hub asks; it caches in tmp_path."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with serving() as server:
        server.add(REPO, pipeline_folder, license="cc-by-nc-4.0")
        # Other tests keep libraries from the network, see oracles/tiny_clip.py.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
        monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache" / "assets"))
        yield server


def left_in(folder) -> list[str]:
    """Names of what is half-made, or made, in the cache of what was converted."""
    return [name for _, folders, files in os.walk(folder) for name in (*folders, *files) if "lock" not in name]
