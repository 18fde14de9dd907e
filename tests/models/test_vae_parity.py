"""The autoencoder against diffusers' AutoencoderKL, every parameter random."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL as TorchVAE
from models.random_vae import CONFIGS, ours, run, torch_vae

from ledit_jax.models.vae import AutoencoderKL


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request) -> tuple[TorchVAE, AutoencoderKL]:
    config = CONFIGS[request.param]
    model = torch_vae(config)
    with torch.no_grad():  # push one log-variance over each end of the clip
        bias = (model.quant_conv or model.encoder.conv_out).bias
        bias[-1], bias[-2] = 25.0, -35.0
    return model, ours(model, config)


def test_encode_equals_diffusers(pair):
    theirs, model = pair
    images = np.random.default_rng(0).uniform(-1, 1, (2, 40, 24, 3)).astype(np.float32)
    posterior = theirs.encode(nchw(images)).latent_dist
    mean, logvar = run(model, "encode", images)
    f = model.config.downsample
    assert mean.shape == logvar.shape == (2, 40 // f, 24 // f, model.config.latent_channels)
    assert np.ptp(mean) > 1
    np.testing.assert_allclose(mean, nhwc(posterior.mean), atol=1e-4, rtol=0)
    np.testing.assert_allclose(logvar, nhwc(posterior.logvar), atol=1e-4, rtol=0)
    assert (logvar.min(), logvar.max()) == (-30, 20)


def test_decode_equals_diffusers(pair):
    theirs, model = pair
    latents = np.random.default_rng(1).standard_normal((2, 7, 4, model.config.latent_channels)).astype(np.float32)
    images = run(model, "decode", latents)
    f = model.config.downsample
    assert images.shape == (2, 7 * f, 4 * f, 3)
    assert np.ptp(images) > 1
    np.testing.assert_allclose(images, nhwc(theirs.decode(nchw(latents)).sample), atol=1e-4, rtol=0)
