"""Models of the hub by name, from a server in a thread: fetched, converted once, and drawn from."""

import shutil

import numpy as np
from hub.conftest import REPO

from ledit_jax import LEDiTPipeline, load_model
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.hub import resolve


def test_from_a_name_to_images(hub, pipeline_folder, tmp_path):
    """The same images as of the folder converted by hand; then from the cache, with the hub gone."""
    pipe = LEDiTPipeline.from_pretrained(REPO)
    options = dict(height=64, width=64, num_steps=2)
    images = pipe([3, 7], **options)
    convert_to_checkpoint(pipeline_folder, tmp_path / "model")
    convert_to_checkpoint(pipeline_folder / "vae", tmp_path / "vae")
    by_hand = LEDiTPipeline.from_checkpoint(tmp_path / "model", vae=tmp_path / "vae")
    np.testing.assert_array_equal(images, by_hand([3, 7], **options))
    assert pipe.about.class_names == tuple(f"class {i}" for i in range(10))
    assert (pipe.about.license, pipe.about.origin[:22]) == ("cc-by-nc-4.0", f"hf://{REPO}")
    fetched = {line.rpartition("/")[2] for line in hub.asked if line.startswith("GET facebook")}
    assert fetched == {"model_index.json", "config.json", "README.md", "diffusion_pytorch_model.safetensors"}

    count = len(hub.asked)
    folder = resolve(f"hf://{REPO}")
    assert len(hub.asked) == count + 1  # which commit is it now?
    hub.close()
    assert resolve(REPO, bare=True) == resolve(REPO, bare=True, local_files_only=True) == folder
    shutil.rmtree(tmp_path / "cache" / "hub")  # what was downloaded is needed no more
    model, config = load_model(REPO)
    assert model(np.zeros((1, 8, 8, 4), np.float32), np.array([5]), np.array([3])).shape == (1, 8, 8, 8)
    assert config.model.num_classes == 10
