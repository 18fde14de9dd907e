"""encode_latents.py ended by a signal: a word, and the same command goes on."""

import functools
import signal

from flax import nnx
from script_runs import Script

from ledit_jax.data.latent_metadata import read_metadata
from ledit_jax.models.vae import AutoencoderKL, VAEConfig
from ledit_jax.weights import export_vae


def test_sigterm_ends_it_with_a_word_and_a_rerun_goes_on(tmp_path):
    vae, out = VAEConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4), tmp_path / "latents"
    export_vae(tmp_path / "vae", nnx.to_pure_dict(nnx.state(AutoencoderKL(vae, nnx.Rngs(0)), nnx.Param)), vae)
    flags = ["--source=digits", "--height=8", "--width=8", "--batch_size=4", "--shard_size=8"]
    encode = functools.partial(Script, ["encode_latents.py", f"--vae={tmp_path / 'vae'}", f"--output={out}", *flags])
    process = encode()
    process.wait_for(lambda: any(out.glob("*.array_record")))
    process.send_signal(signal.SIGTERM)
    result = process.finish(60)
    assert result.returncode == 1, result.stderr
    stopped = "error: stopped by SIGTERM: what is done is kept, and the same command goes on"
    assert result.stderr.splitlines()[-1] == stopped and "Traceback" not in result.stderr
    there = {path.name: path.stat().st_mtime_ns for path in out.glob("*.array_record")}
    assert 0 < len(there) < 181

    result = encode().finish()
    assert result.returncode == 0, result.stderr
    assert f"going on in {out}: {len(there)} of 181 files are there" in result.stderr
    assert read_metadata(str(out)).count == 1442
    assert all((out / name).stat().st_mtime_ns == time for name, time in there.items())
