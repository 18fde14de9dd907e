"""DC-AE from diffusers' folder to a checkpoint of ours, held to diffusers' own network and to the published config."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from data.encoding_files import DCAE
from diffusers import AutoencoderDC
from flax import nnx
from models.random_dcae import STEPS, torch_dcae

from ledit_jax.convert.autoencoders import to_diffusers
from ledit_jax.convert.dcae import dcae_config, dcae_table
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.convert.tables import check_table, flatten_params, param_shapes
from ledit_jax.convert.write import convert_to_torch
from ledit_jax.errors import CheckpointError, ConfigError, ConversionError, DataError, LEDiTError
from ledit_jax.models.autoencoders import abstract_vae
from ledit_jax.models.dcae_config import DCAEConfig
from ledit_jax.models.vae_slices import choose_slices
from ledit_jax.weights import load_vae, vae_description, vae_scale

_BLOCKS = ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3
PUBLISHED = {
    "_class_name": "AutoencoderDC",
    "attention_head_dim": 32,
    "decoder_act_fns": "silu",
    "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "decoder_block_types": _BLOCKS,
    "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
    "decoder_norm_types": "rms_norm",
    "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
    "downsample_block_type": "Conv",
    "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
    "encoder_block_types": _BLOCKS,
    "encoder_layers_per_block": [2, 2, 2, 3, 3, 3],
    "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
    "in_channels": 3,
    "latent_channels": 32,
    "scaling_factor": 0.41407,
    "upsample_block_type": "interpolate",
}
"""vae/config.json of Efficient-Large-Model/Sana_600M_1024px_diffusers, which names
mit-han-lab/dc-ae-f32c32-sana-1.0-diffusers as its source."""


@pytest.fixture(scope="module", params=STEPS)
def pair(request, tmp_path_factory):
    """diffusers' network, and ours by way of its folder."""
    folder, theirs = tmp_path_factory.mktemp("dcae"), torch_dcae(request.param)
    theirs.save_pretrained(folder / "theirs")
    convert_to_checkpoint(folder / "theirs", folder / "ours")
    return theirs, load_vae(folder / "ours"), folder


def nchw(x):
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def test_encode_and_decode_equal_diffusers(pair):
    """With more cells than a head has numbers, where diffusers attends in linear time, and with fewer."""
    theirs, model, _ = pair
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 24, 16, 3)).astype(np.float32)
    mean, logvar = jax.jit(lambda x: model.encode(x))(images)
    with torch.no_grad():
        expected = theirs.encode(nchw(images)).latent.permute(0, 2, 3, 1).numpy()
    assert mean.shape == (2, 6, 4, 4) and np.ptp(mean) > 1 and (logvar == -np.inf).all()
    np.testing.assert_allclose(mean, expected, atol=1e-4, rtol=1e-5)
    latents = rng.standard_normal((2, 3, 2, 4)).astype(np.float32)
    with torch.no_grad():
        expected = theirs.decode(nchw(latents)).sample.permute(0, 2, 3, 1).numpy()
    decoded = jax.jit(lambda z: model.decode(z))(latents)
    assert decoded.shape == (2, 12, 8, 3) and np.ptp(decoded) > 1
    np.testing.assert_allclose(decoded, expected, atol=1e-4, rtol=1e-5)


def test_what_the_files_say_and_back(pair):
    theirs, model, folder = pair
    assert vae_description(folder / "ours")[0] == model.config and vae_scale(folder / "ours") == 0.41407
    state, settings = to_diffusers(model)
    again = AutoencoderDC.from_config(settings)
    again.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
    assert all(torch.equal(p, q) for p, q in zip(theirs.parameters(), again.parameters(), strict=True))
    convert_to_torch(folder / "ours", folder / "back.safetensors")
    convert_to_checkpoint(folder / "back.safetensors", folder / "again")
    assert vae_description(folder / "again") == vae_description(folder / "ours")
    assert vae_scale(folder / "again") == 0.41407


def test_published_by_shapes_alone():
    config = dcae_config(PUBLISHED, "x")
    assert config == DCAEConfig() and (config.downsample, config.latent_channels) == (32, 32)
    with torch.device("meta"):
        theirs = param_shapes(AutoencoderDC.from_config(PUBLISHED).state_dict())
    ours = param_shapes(flatten_params(abstract_vae(config)[1]))
    check_table(dcae_table(ours), theirs, ours)
    assert sum(map(math.prod, ours.values())) == 312_250_275
    assert choose_slices(config, 128, 128, 1, "gpu") == 0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"decoder_norm_types": ["batch_norm"] * 3 + ["rms_norm"] * 3}, CheckpointError, "decoder_norm_types=.*batch"),
        ({"decoder_layers_per_block": [0, 5, 10, 2, 2, 2]}, CheckpointError, "decoder_layers=.*greater than 0"),
        ({"encoder_block_types": 3}, CheckpointError, "encoder_block_types=3 is not supported"),
        ({"encoder_block_out_channels": [128, "x"]}, CheckpointError, "block_out_channels='x' is a str"),
        ({"attention_head_dim": 24}, CheckpointError, "head_dim=24 does not divide 512"),
        ({"latent_channels": 48}, CheckpointError, "latent_channels=48 does not divide 1024"),
        ({"scaling_factor": None}, DataError, "scaling_factor is a NoneType"),
    ],
)
def test_other_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message) as caught:
        dcae_config(PUBLISHED | settings, "folder")
    assert str(caught.value).startswith("folder") and "\n" not in str(caught.value)


def test_damaged_folders_leave_nothing(tmp_path):
    theirs, source = torch_dcae("strides"), tmp_path / "source"
    theirs.save_pretrained(source)
    settings = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(settings | {"decoder_layers_per_block": [1, 1, 1]}))
    refused = functools.partial(convert_to_checkpoint, source, tmp_path / "out")
    with pytest.raises(ConversionError, match=r"decoder\.up_blocks\.2\.1\."):
        refused()
    (source / "config.json").unlink()
    with pytest.raises(LEDiTError, match="source is a DC-AE, and the config.json that says its sizes is not there"):
        refused()
    assert not (tmp_path / "out").exists()


def test_errors_name_the_field():
    model = nnx.merge(*abstract_vae(DCAE))
    with pytest.raises(ConfigError, match="width=15 is not a positive multiple of 2"):
        model.encode(jnp.zeros((1, 16, 15, 3)))
    with pytest.raises(ConfigError, match=r"latents of shape \(1, 8, 8, 3\)"):
        model.decode(jnp.zeros((1, 8, 8, 3)))
