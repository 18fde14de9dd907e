"""Captions from COCO's files to images, through the commands: encode_latents.py, train.py and sample.py."""

import json

import numpy as np
import pytest
from data.captioned_files import write_coco
from data.encoding_files import write_vae
from script_runs import ROOT, assert_one_line, run
from tiny_text import LENGTH, WIDTH, write_text_encoder

from ledit_jax.data.latent_metadata import read_metadata
from ledit_jax.errors import ConfigError
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.recipe import make_recipe

CONFIG = """
from ledit_jax.config import Config


def get_config():
    size = dict(image_height=16, image_width=12)
    model = dict(network="mmdit", depth=2, width=16, num_heads=2, patch_size=2, scan_layers=False)
    train = dict(num_steps=5, batch_size=2, sample_every=5, learning_rate=0.05, ema_decay=0.0, dilation_probability=0.0)
    return Config.from_dict(dict(
        model=model,
        train=train,
        diffusion=dict(objective="flow"),
        sample=dict(sampler="euler", num_steps=2, cfg_scale=2.0),
        data=dict(source="latents", path={latents!r}, **size),
        autoencoder=dict(kind="sd", checkpoint={vae!r}, downsample=2),
        text=dict(encoder="clip", checkpoint={text!r}, length={length}, width={width}),
    )).to_config_dict()
"""


def succeed(*command):
    result = run(*map(str, command))
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the encoders, the latents and the run, and what the commands said."""
    root = tmp_path_factory.mktemp("text")
    data, vae, text = write_coco(root), write_vae(root / "vae", 0), write_text_encoder(root / "clip")
    flags = ["--source=coco", f"--path={data.path}", f"--annotations={data.annotations}", f"--vae={vae}"]
    flags += [f"--text_encoder={text}", "--height=16", "--width=12", "--batch_size=2", f"--output={root / 'latents'}"]
    encoded = succeed("encode_latents.py", *flags)
    named = dict(latents=str(root / "latents"), vae=vae, text=text, length=LENGTH, width=WIDTH)
    (root / "config.py").write_text(CONFIG.format(**named))
    succeed("train.py", f"--config={root / 'config.py'}", f"--workdir={root / 'run'}")
    return root, encoded


@pytest.fixture(scope="module")
def pipeline(made):
    return LEDiTPipeline.from_checkpoint(made[0] / "run")


def test_encoding_says_sizes_and_which_captions_are_cut(made):
    root, encoded = made
    metadata = read_metadata(str(root / "latents"))
    assert (metadata.text, metadata.text_length, metadata.text_width) == (str(root / "clip"), LENGTH, WIDTH)
    assert "0.4 KiB for each of about 2.0 captions (12 x 16 in bfloat16): 3 images about" in encoded.stderr
    assert "'Two giraffes by a tree.' is too long for 12 tokens" in encoded.stderr
    assert "encoded 3 images" in encoded.stdout


def test_training_draws_captions_of_its_data(made):
    samples = made[0] / "run" / "samples"
    assert (samples / "prompts.txt").read_text().splitlines() == [
        "A disc on a table.",
        "Two giraffes by a tree.",
        "Ein Straußenei – Blumen daneben.",
    ]
    assert (samples / "step_0000005.png").read_bytes().startswith(b"\x89PNG")


def test_prompts_are_drawn_in_turn_and_kept_beside_the_images(made, pipeline, tmp_path):
    root = made[0]
    (tmp_path / "p.txt").write_text("a  cat\nLöwe\n")
    flags = [f"--checkpoint={root / 'run'}", "--num_samples=3", "--batch_size=2", "--height=8", "--width=20"]
    flags += [f"--prompts={tmp_path / 'p.txt'}", "--negative_prompt=fog"]
    succeed("sample.py", *flags, f"--out={tmp_path / 'x.npz'}")
    with np.load(tmp_path / "x.npz") as archive:
        assert archive.files == ["arr_0", "prompts"] and archive["arr_0"].shape == (3, 8, 20, 3)
        assert archive["prompts"].tolist() == ["a cat", "Löwe", "a cat"]
        drawn = archive["arr_0"]
    recipe = json.loads((tmp_path / "x.recipe.json").read_text())
    assert recipe["prompts"] == ["a cat", "Löwe"] and recipe["negative_prompt"] == "fog" and recipe["classes"] == []
    assert recipe["text_id"] == pipeline.prompts.encoder.fingerprint
    images = pipeline(["a cat", "Löwe", "a cat"], 8, 20, negative_prompt="fog")
    assert np.abs(images.astype(int) - drawn).max() <= 1
    assert (images != pipeline(["a cat", "Löwe", "a cat"], 8, 20)).any()


def test_another_encoder_is_refused(made, tmp_path):
    other = write_text_encoder(tmp_path / "other", seed=1)
    result = run("sample.py", f"--checkpoint={made[0] / 'run'}", "--prompt=a", f"--text_encoder={other}", "--out=x.png")
    assert_one_line(result, f"text_encoder={other} does not give the states of the empty caption")


def test_a_prompt_for_a_model_of_classes_is_refused(tmp_path):
    flags = [f"--checkpoint={ROOT / 'assets' / 'digits'}", f"--out={tmp_path / 'x.png'}"]
    assert_one_line(run("sample.py", *flags, "--prompt=a seven"), "prompts are for models of text", "class_labels")


@pytest.mark.parametrize(
    "asked, message",
    [
        (dict(classes=[3]), r"class_labels=\[3\] are for models of classes, and this one draws from text"),
        (dict(), r"this model draws from text, and there is no prompt"),
        (dict(prompts=[" "]), r"prompt 1 of 1 is empty"),
    ],
    ids=["label", "nothing", "empty"],
)
def test_a_model_of_text_needs_prompts(made, pipeline, asked, message):
    with pytest.raises(ConfigError, match=message):
        make_recipe(pipeline, checkpoint=made[0] / "run", options=pipeline.options(), **asked)
