"""The autoencoder against diffusers' AutoencoderKL, every parameter random, and its memory-saving decoders."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL as TorchVAE
from flax import nnx

from ledit_jax.convert.tables import unflatten_params
from ledit_jax.convert.vae import vae_params_from_torch
from ledit_jax.errors import ConfigError
from ledit_jax.models import vae, vae_parts
from ledit_jax.models.vae import AutoencoderKL, VAEConfig
from ledit_jax.models.vae_parts import spread_tiles

CONFIGS = {
    "two levels": VAEConfig(block_out_channels=(32, 64), layers_per_block=2, norm_num_groups=8),
    "four levels": VAEConfig(block_out_channels=(8, 16, 24, 32), layers_per_block=1, norm_num_groups=4),
}
METHODS = {
    "encode": AutoencoderKL.encode,
    "decode": AutoencoderKL.decode,
    "parts": vae_parts.decode_in_parts,
    "tiles": vae_parts.decode_in_tiles,
}
SMALL = VAEConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)


def torch_vae(config: VAEConfig) -> TorchVAE:
    """diffusers' model with random weights, scaled to keep activations near 1; no norm or bias keeps its 1 or 0."""
    levels = len(config.block_out_channels)
    model = TorchVAE(
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        latent_channels=config.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                gain = 3.0 if ".to_q." in name else 1.0  # attention that is far from uniform
                p.copy_(gain * noise * p[0].numel() ** -0.5)
            else:
                p.copy_(0.3 * noise + ("norm" in name and name.endswith("weight")))
    return model


def ours(model: TorchVAE, config: VAEConfig) -> AutoencoderKL:
    graphdef, like = nnx.split(nnx.eval_shape(lambda: AutoencoderKL(config, nnx.Rngs(0))), nnx.Param)
    flat = vae_params_from_torch({name: tensor.numpy() for name, tensor in model.state_dict().items()})
    return nnx.merge(graphdef, unflatten_params(flat, like))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _call(graphdef, method: str, args: tuple, params, x):
    return METHODS[method](nnx.merge(graphdef, params), x, *args)


def run(model: AutoencoderKL, method: str, x, *args):
    """The functional use that the class documents."""
    graphdef, params = nnx.split(model, nnx.Param)
    return _call(graphdef, method, args, params, x)


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request) -> tuple[TorchVAE, AutoencoderKL]:
    config = CONFIGS[request.param]
    model = torch_vae(config)
    with torch.no_grad():  # push one log-variance over each end of the clip
        model.quant_conv.bias[-1], model.quant_conv.bias[-2] = 25.0, -35.0
    return model, ours(model, config)


@pytest.fixture(scope="module")
def small() -> AutoencoderKL:
    return ours(torch_vae(SMALL), SMALL)


def test_encode_equals_diffusers(pair):
    theirs, model = pair
    images = np.random.default_rng(0).uniform(-1, 1, (2, 40, 24, 3)).astype(np.float32)
    posterior = theirs.encode(nchw(images)).latent_dist
    mean, logvar = run(model, "encode", images)
    f = model.config.downsample
    assert mean.shape == logvar.shape == (2, 40 // f, 24 // f, 4)
    assert np.ptp(mean) > 1
    np.testing.assert_allclose(mean, nhwc(posterior.mean), atol=1e-4, rtol=0)
    np.testing.assert_allclose(logvar, nhwc(posterior.logvar), atol=1e-4, rtol=0)
    assert (logvar.min(), logvar.max()) == (-30, 20)


def test_decode_equals_diffusers(pair):
    theirs, model = pair
    latents = np.random.default_rng(1).standard_normal((2, 7, 4, 4)).astype(np.float32)
    images = run(model, "decode", latents)
    f = model.config.downsample
    assert images.shape == (2, 7 * f, 4 * f, 3)
    assert np.ptp(images) > 1
    np.testing.assert_allclose(images, nhwc(theirs.decode(nchw(latents)).sample), atol=1e-4, rtol=0)


def test_attention_by_blocks_of_queries(small, monkeypatch):
    latents = np.random.default_rng(2).standard_normal((2, 9, 5, 4)).astype(np.float32)
    attention, h = small.decoder.mid.attention, np.repeat(latents, 4, axis=-1)
    whole = jax.jit(lambda h: attention(h))(h)
    monkeypatch.setattr(vae, "_QUERIES_AT_ONCE", 7)  # does not divide 45
    assert "45,45]" not in str(jax.make_jaxpr(attention)(h))
    blocks = jax.jit(lambda h: attention(h))(h)
    np.testing.assert_allclose(blocks, whole, atol=2e-5, rtol=0)


def test_sliced_equals_whole(small):
    latents = np.random.default_rng(3).standard_normal((3, 6, 10, 4)).astype(np.float32)
    sliced = run(small, "parts", latents)
    np.testing.assert_allclose(sliced, run(small, "decode", latents), atol=2e-5, rtol=0)


def test_one_tile_equals_whole(small):
    latents = np.random.default_rng(4).standard_normal((1, 8, 12, 4)).astype(np.float32)
    tiled = run(small, "tiles", latents, 12, 3)
    np.testing.assert_allclose(tiled, run(small, "decode", latents), atol=2e-5, rtol=0)


def test_tiles_are_decoded_alone_and_cross_faded(small):
    latents = np.random.default_rng(5).standard_normal((1, 8, 20, 4)).astype(np.float32)
    tiled = run(small, "tiles", latents, 12, 4)  # two tiles, at columns 0 and 8
    left, right = run(small, "decode", latents[:, :, :12]), run(small, "decode", latents[:, :, 8:])
    np.testing.assert_allclose(tiled[:, :, :16], left[:, :, :16], atol=2e-5, rtol=0)
    np.testing.assert_allclose(tiled[:, :, 24:], right[:, :, 8:], atol=2e-5, rtol=0)
    fade = ((np.arange(8) + 0.5) / 8)[:, None]
    seam = (1 - fade) * left[:, :, 16:] + fade * right[:, :, :8]
    np.testing.assert_allclose(tiled[:, :, 16:24], seam, atol=2e-5, rtol=0)


def test_tiled_is_near_whole_away_from_seams(small):
    """Not equal: norms and the (here sharp) attention see one tile. Within 15% of the image's spread on average."""
    latents = np.random.default_rng(6).standard_normal((1, 32, 56, 4)).astype(np.float32)
    tiled, whole = run(small, "tiles", latents, 32, 8), run(small, "decode", latents)
    error = np.sqrt(np.mean((tiled - whole) ** 2, axis=(0, 1, 3))) / np.std(whole)
    seam = slice(2 * 20, 2 * 36)  # tiles meet at cells 24 to 32; 4 cells on either side see the tile's border
    assert 1e-3 < np.delete(error, seam).mean() < 0.15


def test_padding_is_at_the_bottom_and_right_alone(small):
    images = np.random.default_rng(7).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    mean, _ = run(small, "encode", images)
    flipped, _ = run(small, "encode", images[:, ::-1])
    assert np.abs(mean - flipped[:, ::-1]).max() > 1e-2


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(128, 64, 16), (50, 16, 5), (17, 16, 0), (9, 16, 4), (40, 8, 7)]
)
def test_tiles_cover_everything_with_weights_that_sum_to_one(length, tile, overlap):
    tile = min(length, tile)
    starts, weights = spread_tiles(length, tile, overlap, 4)
    total = np.zeros(length * 4)
    for start, weight in zip(starts, weights, strict=True):
        assert (weight > 0).all()
        total[start * 4 : (start + tile) * 4] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert starts[0] == 0 and starts[-1] == length - tile
    assert (np.diff(starts) <= tile - overlap).all()


def test_bfloat16_keeps_parameters_norms_and_results_in_float32(small):
    half = nnx.merge(
        nnx.split(nnx.eval_shape(lambda: AutoencoderKL(dataclasses.replace(SMALL, dtype="bfloat16"), nnx.Rngs(0))))[0],
        nnx.split(small, nnx.Param)[1],
    )
    latents = np.random.default_rng(8).standard_normal((1, 8, 12, 4)).astype(np.float32)
    images, exact = run(half, "decode", latents), run(small, "decode", latents)
    assert images.dtype == jnp.float32
    assert 1e-4 < np.abs(images - exact).max() / np.std(exact) < 0.2
    jaxpr = str(jax.make_jaxpr(half.decode)(latents))
    convolutions = [line for line in jaxpr.splitlines() if "= conv_general_dilated[" in line]
    assert convolutions and all(":bf16[" in line for line in convolutions)
    for operation in ("rsqrt", "logistic"):  # norms, and the SiLU that reads them
        lines = [line for line in jaxpr.splitlines() if f"= {operation}" in line]
        assert lines and all(":f32[" in line for line in lines)


def test_same_program_without_graph_mode():
    """With NNX's graph features off (NNX_GRAPH_MODE, NNX_GRAPH_UPDATES) the model builds and traces alike."""

    def programs():
        graphdef, params = nnx.split(nnx.eval_shape(lambda: AutoencoderKL(SMALL, nnx.Rngs(0))), nnx.Param)

        def loss(params, images):
            model = nnx.merge(graphdef, params)
            mean, logvar = model.encode(images)
            return vae_parts.decode_in_tiles(model, mean + logvar, tile=4, overlap=1).sum()

        return str(jax.make_jaxpr(jax.grad(loss))(params, jax.ShapeDtypeStruct((2, 8, 12, 3), jnp.float32)))

    expected = programs()
    with nnx.set_graph_mode(False), nnx.set_graph_updates(False):
        assert programs() == expected


def test_large_images_are_decoded_by_tiles_and_one_by_one(small, monkeypatch):
    latents = np.random.default_rng(9).standard_normal((2, 12, 20, 4)).astype(np.float32)
    tiles = functools.partial(vae_parts.decode_in_tiles, tile=12, overlap=4)
    monkeypatch.setattr(vae_parts, "_LARGEST_WHOLE", 20 * 12 - 1)
    monkeypatch.setattr(vae_parts, "decode_in_tiles", tiles)
    graphdef, params = nnx.split(small)
    parts = jax.jit(lambda params, x: vae_parts.decode_in_parts(nnx.merge(graphdef, params), x))(params, latents)
    expected = np.concatenate([run(small, "tiles", latent[None], 12, 4) for latent in latents])
    np.testing.assert_allclose(parts, expected, atol=2e-5, rtol=0)


def test_2048_pixels_fit():
    """Temporary memory of the compiled full-size decoder, in GiB. `decode` of 1024x1024 needs 3.5 for each image."""
    graphdef, params = nnx.split(nnx.eval_shape(lambda: AutoencoderKL(VAEConfig(), nnx.Rngs(0))), nnx.Param)

    def temporary(count, side):
        latents = jax.ShapeDtypeStruct((count, side, side, 4), jnp.float32)
        step = jax.jit(lambda params, x: vae_parts.decode_in_parts(nnx.merge(graphdef, params), x))
        return step.lower(params, latents).compile().memory_analysis().temp_size_in_bytes / 2**30

    assert temporary(8, 128) < 5
    assert temporary(1, 256) < 2


def test_errors_name_the_field():
    model = nnx.eval_shape(lambda: AutoencoderKL(CONFIGS["four levels"], nnx.Rngs(0)))
    with pytest.raises(ConfigError, match="width=30 is not a positive multiple of 8"):
        model.encode(jnp.zeros((1, 16, 30, 3)))
    with pytest.raises(ConfigError, match=r"images of shape \(1, 3, 16, 16\).*channels last"):
        model.encode(jnp.zeros((1, 3, 16, 16)))
    with pytest.raises(ConfigError, match=r"latents of shape \(1, 8, 8, 3\)"):
        model.decode(jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ConfigError, match=r"overlap=8 .* tile=8"):
        vae_parts.decode_in_tiles(model, jnp.zeros((1, 16, 16, 4)), tile=8, overlap=8)
    with pytest.raises(ConfigError, match="norm_num_groups=32 does not divide 48"):
        VAEConfig(block_out_channels=(32, 48))


def test_config_from_json_is_hashable():
    config = VAEConfig(**{**dataclasses.asdict(SMALL), "block_out_channels": [8, 16]})
    assert config == SMALL and hash(config) == hash(SMALL)
