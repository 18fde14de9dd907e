"""Networks of ours as folders for a hub, and back: bit for bit, or refused where PyTorch has no names for them."""

import json
import shutil

import jax
import numpy as np
import pytest
from data.encoding_files import DCAE, make_dcae
from diffusers import AutoencoderKL
from tiny import flow_config, noisy_params, tiny_config, tiny_mmdit

from ledit_jax import LEDiTPipeline
from ledit_jax.errors import ConfigError, OutputError
from ledit_jax.hub import resolve, save_pretrained
from ledit_jax.sampling.loading import find_vae_sizes
from ledit_jax.weights import load_weights, vae_scale
from ledit_jax.weights.about import About, load_about


@pytest.mark.parametrize("config", [flow_config(flow=dict(convention="sit")), tiny_mmdit()])
def test_there_and_back(tmp_path, config):
    params, about = noisy_params(config), About(class_names=("a", ""), text_encoder="hf://org/clip")
    save_pretrained(tmp_path / "mine", params, config, step=7, about=about)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert "license:" not in (tmp_path / "mine" / "README.md").read_text().split("---")[1]
    folder = resolve(tmp_path / "mine", cache_dir=tmp_path / "cache")
    again, config_again, step = load_weights(folder)
    assert (config_again, step) == (config, 7)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert load_about(folder) == about.__class__(**vars(about) | {"origin": "mine"})


def test_what_a_pipeline_says_of_its_latents_comes_with_it(pipeline_folder, tmp_path):
    source = tmp_path / "theirs"
    shutil.copytree(pipeline_folder, source)
    settings = json.loads((source / "vae" / "config.json").read_text())
    (source / "vae" / "config.json").write_text(json.dumps(settings | dict(scaling_factor=0.4, shift_factor=0.25)))
    pipe = LEDiTPipeline.from_pretrained(str(source), cache_dir=tmp_path / "cache")
    assert (pipe.config.autoencoder.scale, pipe.config.autoencoder.latents_mean) == (0.4, (0.25,) * 4)
    assert vae_scale(pipe.about.autoencoder) == 0.4
    pipe.save_pretrained(tmp_path / "mine")
    assert AutoencoderKL.from_pretrained(tmp_path / "mine" / "vae").config.shift_factor == 0.25


def test_dcae_goes_with_its_model(tmp_path):
    config = tiny_config().replaced("autoencoder", kind="sd", downsample=2, scale=0.41407)
    vae = make_dcae()
    save_pretrained(tmp_path / "mine", noisy_params(config), config, vae=vae)
    said = json.loads((tmp_path / "mine" / "vae" / "config.json").read_text())
    assert (said["_class_name"], said["scaling_factor"]) == ("AutoencoderDC", 0.41407)
    pipe = LEDiTPipeline.from_pretrained(str(tmp_path / "mine"), cache_dir=tmp_path / "cache")
    assert find_vae_sizes(pipe.config, resolve(tmp_path / "mine", cache_dir=tmp_path / "cache")) == DCAE
    pipe.decoder_gib = 1e-9  # it has no levels that slices could hold
    latents = jax.random.normal(jax.random.key(0), (2, 3, 2, 4))
    want = np.clip(127.5 * np.asarray(jax.jit(lambda z: vae.decode(z))(latents / 0.41407)) + 128, 0, 255)
    assert np.abs(pipe.decode(latents).astype(int) - want.astype(np.uint8)).max() <= 1 and np.ptp(want) > 50


def test_what_cannot_be_written(tmp_path):
    config = tiny_config("Learnable")
    with pytest.raises(ConfigError, match="model.position=learnable .*: share its checkpoint's folder as it is"):
        save_pretrained(tmp_path / "mine", noisy_params(config), config)
    (tmp_path / "file").write_text("")
    config = tiny_config()
    with pytest.raises(OutputError, match="cannot be written"):
        save_pretrained(tmp_path / "file" / "mine", noisy_params(config), config)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
