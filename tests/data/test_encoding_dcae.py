"""Latents of an autoencoder without a posterior: from its encoder to the batches of training."""

import dataclasses

import numpy as np
from data.encoding_files import DCAE, SIZES, make_dcae, open_encoder, open_latents
from flax import nnx

from ledit_jax.config import AutoencoderConfig
from ledit_jax.data.encoding import encode_latents
from ledit_jax.weights import export_vae


def test_training_reads_latents_as_they_are(tmp_path, data, open_loader):
    export_vae(tmp_path / "vae", nnx.to_pure_dict(nnx.state(make_dcae(), nnx.Param)), DCAE)
    encode_latents(data, open_encoder(str(tmp_path / "vae")), tmp_path / "latents", **SIZES | dict(shard_size=64))
    means = np.stack([record["mean"] for record in open_latents(tmp_path / "latents")])
    latents = dataclasses.replace(data, source="latents", path=str(tmp_path / "latents"), flip=False)
    space = AutoencoderConfig(kind="sd", downsample=2, scale=SIZES["scale"])
    x = next(open_loader(latents, space, batch_size=39))["x"]
    order = np.argsort(x[:, 0, 0, 0]), np.argsort(means[:, 0, 0, 0])
    np.testing.assert_array_equal(x[order[0]], means[order[1]] * np.float32(SIZES["scale"]))
