"""The autoencoder's decoder in slices against the whole one, its types, its memory and its refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models.random_vae import CONFIGS, SMALL, ours, run, torch_vae

from ledit_jax.errors import ConfigError
from ledit_jax.models import vae, vae_slices
from ledit_jax.models.autoencoders import abstract_vae
from ledit_jax.models.vae import AutoencoderKL, VAEConfig
from ledit_jax.models.vae_slices import choose_slices


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


@pytest.mark.parametrize("sliced", [1, 3])
def test_slices_equal_the_whole(sliced, monkeypatch):
    """Heights that the slices do not divide; statistics, borders and the seam between two slices among it."""
    monkeypatch.setattr(vae_slices, "_ROWS", 16)
    config = CONFIGS["four levels"]
    model = ours(torch_vae(config), config)
    latents = np.random.default_rng(3).standard_normal((2, 9, 5, 4)).astype(np.float32)
    whole = run(model, "decode", latents)
    np.testing.assert_allclose(run(model, "by image", latents, sliced), whole, atol=2e-5, rtol=0)
    assert np.abs(whole[:, 16:32] - run(model, "decode", latents[:, 2:4])).max() > 0.1, (
        "a slice by itself is another image"
    )


def test_slices_are_chosen_by_the_memory():
    """Stable Diffusion's: 1024x1024 takes 3.5 GiB whole on a CPU, and 2048x2048 four times that."""
    assert [choose_slices(VAEConfig(), 128, 128, gib * 2**30, "cpu") for gib in (4, 3, 1)] == [0, 1, 2]
    assert [choose_slices(VAEConfig(), 256, 256, gib * 2**30, "cpu") for gib in (15, 10, 5)] == [0, 1, 2]
    assert choose_slices(VAEConfig(), 256, 256, 10 * 2**30, "tpu") == 0
    assert choose_slices(VAEConfig(), 2048, 2048, 1, "gpu") == 3, "all levels but the first"


def test_slices_need_a_fraction_of_the_memory(monkeypatch):
    """Temporary memory of the compiled decoder, the last two of four levels in slices."""
    monkeypatch.setattr(vae_slices, "_ROWS", 16)
    monkeypatch.setattr(vae, "_QUERIES_AT_ONCE", 64)
    graphdef, params = abstract_vae(CONFIGS["four levels"])
    latents = jax.ShapeDtypeStruct((1, 64, 32, 4), jnp.float32)

    def temporary(sliced):
        step = jax.jit(lambda params, x: vae_slices.decode_by_image(nnx.merge(graphdef, params), x, sliced))
        return step.lower(params, latents).compile().memory_analysis().temp_size_in_bytes

    assert temporary(2) < 0.25 * temporary(0)


def test_padding_is_at_the_bottom_and_right_alone(small):
    images = np.random.default_rng(7).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    mean, _ = run(small, "encode", images)
    flipped, _ = run(small, "encode", images[:, ::-1])
    assert np.abs(mean - flipped[:, ::-1]).max() > 1e-2


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
            return vae_slices.decode_in_slices(model, mean + logvar, 1).sum()

        return str(jax.make_jaxpr(jax.grad(loss))(params, jax.ShapeDtypeStruct((1, 8, 12, 3), jnp.float32)))

    expected = programs()
    with nnx.set_graph_mode(False), nnx.set_graph_updates(False):
        assert programs() == expected


def test_errors_name_the_field():
    model = nnx.eval_shape(lambda: AutoencoderKL(CONFIGS["four levels"], nnx.Rngs(0)))
    with pytest.raises(ConfigError, match="width=30 is not a positive multiple of 8"):
        model.encode(jnp.zeros((1, 16, 30, 3)))
    with pytest.raises(ConfigError, match=r"images of shape \(1, 3, 16, 16\).*channels last"):
        model.encode(jnp.zeros((1, 3, 16, 16)))
    with pytest.raises(ConfigError, match=r"latents of shape \(1, 8, 8, 3\)"):
        model.decode(jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ConfigError, match="norm_num_groups=32 does not divide 48"):
        VAEConfig(block_out_channels=(32, 48))


def test_config_from_json_is_hashable():
    config = VAEConfig(**{**dataclasses.asdict(SMALL), "block_out_channels": [8, 16]})
    assert config == SMALL and hash(config) == hash(SMALL)
