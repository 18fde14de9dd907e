"""Commands on a disk that runs full (a limit on the size of files): one line, and the same command goes on later."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx
from script_runs import run
from tiny import network_of, tiny_config

from ledit_jax.models import init_params
from ledit_jax.models.vae import AutoencoderKL, VAEConfig
from ledit_jax.weights import export_vae, export_weights


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder with the checkpoints `model` and `vae`."""
    folder, config = tmp_path_factory.mktemp("checkpoints"), tiny_config()
    vae = VAEConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4)
    export_weights(folder / "model", init_params(network_of(config), jax.random.key(0)), config, step=1)
    export_vae(folder / "vae", nnx.to_pure_dict(nnx.state(AutoencoderKL(vae, nnx.Rngs(0)), nnx.Param)), vae)
    return folder


def assert_full(result, path) -> None:
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert last.startswith(f"error: {path} cannot be written (") and "MiB are free there): make room" in last


def test_sampling_goes_on_and_draws_a_shard_that_was_cut_short_again(checkpoints, tmp_path):
    out, shards = tmp_path / "x.npz", tmp_path / "x.npz.shards"
    sample = functools.partial(run, "sample.py", f"--checkpoint={checkpoints / 'model'}", f"--out={out}")
    sample = functools.partial(sample, "--num_samples=40", "--num_steps=2", "--batch_size=16", "--sampler=ddim")
    assert_full(sample(most_bytes=1000), shards / "000000.npy")
    assert_full(sample(most_bytes=4000), out)  # each shard fits, and all together do not
    assert sorted(path.name for path in shards.glob("*.npy")) == ["000000.npy", "000001.npy", "000002.npy"]
    whole = (shards / "000001.npy").read_bytes()
    (shards / "000001.npy").write_bytes(whole[:-10])  # as a power cut leaves it on some file systems
    result = sample()
    assert result.returncode == 0, result.stderr
    assert "drawn again, since " in result.stderr and "000001.npy is damaged or cut short" in result.stderr
    assert "24 of 40 images are there already" in result.stderr and not shards.exists()
    with np.load(out) as arrays:
        assert arrays["arr_0"].shape == (40, 8, 8, 3)
        np.testing.assert_array_equal(arrays["arr_0"][16:32, ..., 0].tobytes(), whole[-16 * 64 :])


def test_encoding(checkpoints, tmp_path):
    flags = ["--source=digits", "--height=8", "--width=8", "--batch_size=64", "--shard_size=512"]
    encode = functools.partial(run, "encode_latents.py", f"--vae={checkpoints / 'vae'}", f"--output={tmp_path}", *flags)
    assert_full(encode(most_bytes=60_000), tmp_path / "latents-00000-of-00003.array_record")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
def test_converting(checkpoints, tmp_path, suffix):
    direction = ["--to=torch", f"--input={checkpoints / 'model'}"]
    if not suffix:
        assert run("convert_torch_weights.py", *direction, f"--output={tmp_path / 'y.pt'}").returncode == 0
        direction = [f"--input={tmp_path / 'y.pt'}"]
    out = tmp_path / f"x{suffix}"
    # Less than the largest array: into how many files Orbax puts them all differs from run to run.
    assert_full(run("convert_torch_weights.py", *direction, f"--output={out}", most_bytes=8_000), out)
    assert not any(path.name != "y.pt" for path in tmp_path.iterdir())
