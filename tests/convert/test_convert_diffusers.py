"""diffusers' DiT converted: against its own output, its own frequencies and 50 steps of its own scheduler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from convert.dit_files import T, Y, diffusers_dit, noise, oracle, relative_error, run_torch, small
from diffusers import DDIMScheduler
from tiny import network_of

from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.convert.write import convert_to_torch
from ledit_jax.diffusion import create_diffusion
from ledit_jax.diffusion.guidance import guided
from ledit_jax.errors import CheckpointError
from ledit_jax.models.functional import make_apply
from ledit_jax.sampling.loading import load_model
from ledit_jax.weights import load_weights


def test_diffusers(tmp_path):
    """Its transformer's folder against its own output; then a sharded pipeline, a bare file, a pickle against that."""
    theirs = diffusers_dit()
    folder = tmp_path / "dit" / "transformer"
    theirs.save_pretrained(folder)
    convert_to_checkpoint(folder, tmp_path / "checkpoint")
    model, config = load_model(tmp_path / "checkpoint")
    assert config.model == small(timestep_frequency_shift=1.0) and config.latent_shape() == (8, 8, 4)
    x = noise(3, 8, 8, 4)
    assert relative_error(model(x, T, Y), run_torch(theirs, x)) < 1e-4

    theirs.save_pretrained(tmp_path / "sharded" / "transformer", max_shard_size="50KB")
    assert len(list((tmp_path / "sharded" / "transformer").glob("*.safetensors"))) > 2
    theirs.save_pretrained(tmp_path / "bin", safe_serialization=False)
    for other in ("sharded", "bin", "dit/transformer/diffusion_pytorch_model.safetensors"):
        convert_to_checkpoint(tmp_path / other, tmp_path / "other", overwrite=True)
        params, again, _ = load_weights(tmp_path / "other")
        assert again == config
        jax.tree.map(np.testing.assert_array_equal, params, model.args[0])


def test_diffusers_weights_at_the_frequencies_that_they_were_trained_with(tmp_path, caplog):
    """Shift 0 is DiT's own network of the same weights; the log says which was taken, and what the other one is."""
    theirs = diffusers_dit()
    theirs.save_pretrained(tmp_path / "transformer")
    outputs = []
    for shift in (None, 0.0):
        with caplog.at_level("INFO", logger="ledit_jax"):
            convert_to_checkpoint(tmp_path / "transformer", tmp_path / f"{shift}", frequency_shift=shift)
        used = 1 if shift is None else 0
        assert f"timestep_frequency_shift={used}: 1 is what diffusers computes, 0 what DiT's" in caplog.text
        model, config = load_model(tmp_path / f"{shift}")
        assert config.model.timestep_frequency_shift == used
        outputs.append(model(noise(3, 8, 8, 4), T, Y))
    assert "SiT" not in caplog.text
    convert_to_torch(tmp_path / "0.0", tmp_path / "dit.pt")  # in DiT's layout, as DiT's own code would read it
    peer = oracle(small())
    peer.load_state_dict(torch.load(tmp_path / "dit.pt"), strict=False)
    assert relative_error(outputs[1], run_torch(peer, noise(3, 8, 8, 4))) < 1e-4
    assert relative_error(outputs[0], outputs[1]) > 1e-3


def test_diffusers_copies_that_drifted_apart(tmp_path):
    theirs = diffusers_dit()
    theirs.transformer_blocks[1].norm1.emb.timestep_embedder.linear_2.bias.data[3] += 1e-3
    theirs.save_pretrained(tmp_path / "dit")
    with pytest.raises(CheckpointError, match=r"transformer_blocks\.1\..*linear_2\.bias differs from that of block 0"):
        convert_to_checkpoint(tmp_path / "dit", tmp_path / "checkpoint")


@pytest.mark.parametrize("settings", [{"norm_eps": 1e-3}, {"activation_fn": "gelu"}, {"norm_elementwise_affine": True}])
def test_diffusers_settings_that_dit_does_not_have(tmp_path, settings):
    diffusers_dit(**settings).save_pretrained(tmp_path / "dit")
    with pytest.raises(CheckpointError, match=f"config.json has {next(iter(settings))}="):
        convert_to_checkpoint(tmp_path / "dit", tmp_path / "checkpoint")


def test_50_steps_of_ddim_with_guidance(tmp_path):
    """diffusers' network and scheduler against the converted checkpoint and our chain, from the same start."""
    theirs = diffusers_dit()
    theirs.save_pretrained(tmp_path / "dit")
    convert_to_checkpoint(tmp_path / "dit", tmp_path / "checkpoint")
    params, config, _ = load_weights(tmp_path / "checkpoint")
    apply, start, scale = make_apply(network_of(config)), noise(2, 8, 8, 4), 2.0
    denoise = guided(lambda x, t, y: apply(params, x, t, y), jnp.array([3, 7]), jnp.array([10, 10]), scale, "3")
    ours = jax.jit(lambda x: create_diffusion("ddim50").ddim_sample_loop(denoise, x))(start)

    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False)
    scheduler.set_timesteps(50)
    x = torch.from_numpy(start).permute(0, 3, 1, 2)
    for t in scheduler.timesteps:
        with torch.no_grad():
            out = theirs(torch.cat([x, x]), t.expand(4), torch.tensor([3, 7, 10, 10])).sample[:, :4]
        given, null = out.chunk(2)
        eps = torch.cat([(null + scale * (given - null))[:, :3], given[:, 3:]], dim=1)
        x = scheduler.step(eps, t, x).prev_sample
    want = x.permute(0, 2, 3, 1).numpy()
    assert relative_error(ours, want) < 1e-3
    assert relative_error(start, want) > 0.1
