"""train.py and sample.py compile for TPUs that are not there, with libtpu; bad requests are one line each."""

import dataclasses
import json
import re
import subprocess

import pytest
from data.encoding_files import write_vae
from script_runs import assert_one_line, run
from tiny import tiny_config

from ledit_jax.compile_only import programs
from ledit_jax.compile_only.topology import has_tpu_compiler
from ledit_jax.config import AutoencoderConfig
from ledit_jax.models.vae import VAEConfig

needs_libtpu = pytest.mark.skipif(not has_tpu_compiler(), reason="there is no libtpu for this platform")

CONFIG = """
import dataclasses
from tiny import tiny_config
from ledit_jax.config import MeshConfig

def get_config():
    # Wide enough that the partitioner does not think weights too small to matter.
    model = dict(width=64, depth=4, scan_layers=True, block_order="ca")
    config = tiny_config(model=model, train=dict(batch_size=16, dilation_probability=0.0))
    return dataclasses.replace(config, mesh=MeshConfig(data=1, fsdp=-1)).to_config_dict()
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny_tpu.py"
    path.write_text(CONFIG)
    return path


def report_of(result: subprocess.CompletedProcess) -> dict:
    return json.loads(result.stdout.splitlines()[-1])


@needs_libtpu
def test_a_step_for_four_chips(config):
    """With FSDP's promise: what a chip sends are weights, and does not grow with the batch."""
    result = run("train.py", f"--config={config}", "--compile_only=v5e:2x2", "--config.train.batch_size=256")
    assert result.returncode == 0, result.stderr
    report = report_of(result)
    assert report["fits"] and report["topology"] == {"name": "v5e:2x2", "chips": 4}
    memory = report["memory"]
    assert 0 < memory["arguments"] < report["needed_bytes"] < report["capacity_bytes"] == 15.75 * 2**30
    assert memory["aliased"] > 0.9 * memory["output"], "the new state takes the old one's place"
    # The model's count leaves out only what lies outside its products; the compiler's stops after one of four layers.
    assert 0.95 < report["compiled_flops"] / report["model_flops"] < 1.3
    predicted = report["predicted"]
    assert report["milliseconds_at_peak"] < predicted["compute"] < predicted["exposed"]
    assert 0 < predicted["network"] < predicted["exposed"], "of four chips the network takes its time"
    assert len(predicted["costliest"]) == 10 and "training/step.py" in json.dumps(predicted["costliest"])
    assert all(re.search(rf"^{what}", result.stdout, re.M) for what in ("fits +yes", "HBM / chip", "predicted step"))
    weights = memory["arguments"]  # a quarter of parameters, EMA and two moments: as much as all parameters
    activation = 256 // 4 * 16 * 64 * 4  # bytes of 16 tokens of 64 numbers for each image of a chip
    assert 0 < report["sent_bytes"] < 2 * weights < 4 * 4 * activation, "four a block, and a block has more"


@needs_libtpu
def test_a_batch_that_does_not_fit_ends_with_1(config):
    result = run("train.py", f"--config={config}", "--compile_only=v5e:1x1", "--config.train.batch_size=4000000")
    assert result.returncode == 1, result.stderr
    report = report_of(result)
    assert not report["fits"] and report["needed_bytes"] > report["capacity_bytes"]
    assert re.search(r"fits +NO", result.stdout)


@needs_libtpu
def test_a_denoising_step(config):
    result = run("sample.py", f"--config={config}", "--compile_only=v5e:1x1", "--batch_size=8", "--width=16")
    assert result.returncode == 0, result.stderr
    report = report_of(result)
    assert report["fits"] and report["program"] == "ddim step of 8 images, guided"
    assert report["topology"] == {"name": "v5e:1x1", "chips": 1}
    assert report["sent_bytes"] == 0, "one chip has nobody to send to"
    assert 0.95 < report["compiled_flops"] / report["model_flops"] < 1.3
    predicted = report["predicted"]
    assert predicted["compute"] == predicted["hidden"] == predicted["exposed"] > report["milliseconds_at_peak"]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--compile_only=v7e:4x4"], "TPU generation v7e is unknown"),
        pytest.param(
            ["--compile_only=v5e:2x2", "--config.mesh.fsdp=3"], "multiply to the 4 devices", marks=needs_libtpu
        ),
        pytest.param(
            ["--compile_only=v5e:4x4", "--config.train.batch_size=24"], "is not a multiple of", marks=needs_libtpu
        ),
        ([], "--workdir is missing: where checkpoints and metrics go"),
    ],
    ids=["generation", "mesh", "batch", "workdir"],
)
def test_bad_requests_are_one_line(config, arguments, expected):
    result = run("train.py", f"--config={config}", *arguments)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    assert expected in result.stderr


def test_sample_needs_a_model_and_its_own_autoencoder(tmp_path):
    assert_one_line(run("sample.py", "--compile_only=v5e:4x4"), "give --checkpoint or --config")
    vae = f"--vae={write_vae(tmp_path / 'vae', 0)}"
    result = run("sample.py", "--config=configs/imagenet256.py:LEDiT-XL/2", vae, "--compile_only=v5e:4x4")
    assert_one_line(result, "the VAE downsamples by 2 to 4 channels, and this model's latents are downsampled by 8")


@needs_libtpu
def test_sampling_of_latents_is_a_step_and_the_decoder(monkeypatch):
    """With a small decoder: whole, each chip its own images, and in slices where one may take next to nothing."""
    small = VAEConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)
    config = dataclasses.replace(tiny_config(), autoencoder=AutoencoderConfig(kind="sd", downsample=2))
    sliced = programs.report_decoder(config, "v5e:1x1", 32, 16, 2, 1e-6, small)
    monkeypatch.setattr(programs, "report_denoising_step", lambda *_: sliced)  # any program does in the step's place
    found = programs.report_sampling(config, "v5e:2x2", 32, 16, 2, vae=small)
    whole = found.decoder
    assert whole.program == "decoder of 8 images, one by one, whole," and whole.sent_bytes == 0
    assert sliced.program == "decoder of 2 images, one by one, 1 of 2 levels in slices,"
    assert 0.9 < whole.compiled_flops / whole.model_flops < 1.2
    assert sliced.compiled_flops > 2 * whole.compiled_flops, "a pass for each norm, and one more"
    assert json.loads(found.to_json())["decoder"]["program"] == whole.program
    assert found.fits and "sampling fits       yes" in str(found)
    assert "autoencoder         an autoencoder (f2c4), as its checkpoint says" in str(found)
    monkeypatch.setattr(programs, "report_decoder", lambda *_: sliced)
    config = config.replaced("data", image_height=64, image_width=64)
    config = config.replaced("autoencoder", downsample=32, latent_channels=32)
    unnamed = programs.report_sampling(config, "v5e:1x1", 64, 64, 2)
    assert json.loads(unnamed.to_json())["autoencoder"] == "DC-AE (f32c32), since no checkpoint of one is named"
    large = dataclasses.replace(found, weights=16 * 2**30)  # a network beside which nothing fits
    assert large.needed_bytes > 16 * 2**30 and not large.fits and "sampling fits       NO: 16.0" in str(large)
