"""The autoencoder's memory-saving decoders against the plain one, its types, its memory and its refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models.random_vae import CONFIGS, SMALL, ours, run, torch_vae

from ledit_jax.errors import ConfigError
from ledit_jax.models import vae, vae_parts
from ledit_jax.models.vae import AutoencoderKL, VAEConfig, abstract_vae
from ledit_jax.models.vae_parts import spread_tiles


@pytest.fixture(scope="module")
def small() -> AutoencoderKL:
    return ours(torch_vae(SMALL), SMALL)


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
        graphdef, params = abstract_vae(SMALL)

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
    graphdef, params = abstract_vae(VAEConfig())

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
