"""The pipeline: a sample depends on (seed, index) alone; sizes, guidance and attention scaling do what they say."""

import dataclasses
import io
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import network_of, noisy_params, tiny_config
from tqdm import tqdm

from ledit_jax import LEDiTPipeline, load_model
from ledit_jax.config import AutoencoderConfig
from ledit_jax.errors import CheckpointError, ConfigError, OutputError
from ledit_jax.hub import resolve
from ledit_jax.models.functional import init_params, make_apply
from ledit_jax.models.vae import AutoencoderKL, VAEConfig
from ledit_jax.sampling import decoding
from ledit_jax.weights import export_weights, find_checkpoint, load_weights


@pytest.fixture(scope="module")
def pipeline():
    config = tiny_config()
    return LEDiTPipeline(config, noisy_params(config))


def near(a, b, levels=1):
    """Equal up to the rounding of another batch size's matrix products."""
    return np.abs(a.astype(int) - b.astype(int)).max() <= levels


def test_images_of_any_shape(pipeline):
    images = pipeline([1, 2, 3], 8, 12)
    assert images.shape == (3, 8, 12, 1) and images.dtype == np.uint8
    assert pipeline([1]).shape == (1, 8, 8, 1)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp"])
def test_a_sample_depends_on_seed_and_index_alone(pipeline, sampler):
    labels, options = [0, 1, 2, 3, 4], pipeline.options(sampler=sampler)
    whole = pipeline(labels, seed=7, options=options)
    assert near(whole, pipeline(labels, seed=7, options=options, batch_size=2))
    assert near(whole[:3], pipeline(labels[:3], seed=7, options=options))
    assert not near(whole, pipeline(labels, seed=8, options=options), levels=30)
    assert not near(pipeline([0, 0], seed=7, options=options)[0], pipeline([0, 0], seed=7, options=options)[1], 30)


def test_guidance_interval_and_channels_change_the_result(pipeline):
    plain = pipeline([1, 2], cfg_scale=1.0)
    assert not near(plain, pipeline([1, 2], cfg_scale=6.0))
    assert near(plain, pipeline([1, 2], options=pipeline.options(cfg_scale=6.0, cfg_interval=(0.0, 0.0))), levels=6)
    all_channels, three = (pipeline.options(cfg_scale=6.0, cfg_channels=channels) for channels in ("all", "3"))
    # One channel: the same.
    assert near(pipeline([1, 2], options=all_channels), pipeline([1, 2], options=three), levels=0)


def test_unguided_steps_run_without_the_second_half(pipeline, monkeypatch):
    batches = []
    # None that has programs already.
    config = dataclasses.replace(pipeline.config, model=dataclasses.replace(pipeline.config.model, norm_eps=1e-5))
    apply = make_apply(network_of(config))
    spy = lambda p, x, *args, **kwargs: batches.append(x.shape[0]) or apply(p, x, *args, **kwargs)  # noqa: E731
    monkeypatch.setattr("ledit_jax.sampling.denoising.make_apply", lambda network: spy)
    fresh = LEDiTPipeline(config, pipeline.params)
    half = fresh.options(cfg_interval=(0.0, 0.5))
    fresh([1, 2, 3, 4], cfg_scale=4.0, options=half)
    assert sorted(set(batches)) == [4, 8]  # one trace of each kind
    batches.clear()
    fresh([1, 2, 3, 4], cfg_scale=3.0, options=half)
    assert not batches, "a size and a sampler seen before were compiled again"


def test_rope_methods_are_a_choice_at_sampling():
    config = tiny_config(model=dict(position="rope"))
    rotary = LEDiTPipeline(config, noisy_params(config))
    options = rotary.options(cfg_scale=1.0), rotary.options(cfg_scale=1.0, rope_method="ntk")
    plain, stretched = (rotary([1, 2], 16, 16, options=chosen) for chosen in options)
    assert (plain != stretched).any()


def test_attention_scaling_acts_beyond_the_training_size_only(pipeline):
    on, off = (pipeline.options(attention_scaling=scaling, cfg_scale=1.0) for scaling in ("on", "off"))
    assert near(pipeline([1], options=on), pipeline([1], options=off), levels=1)
    scaled, plain = (pipeline([1, 2], 16, 16, options=options) for options in (on, off))
    assert not near(scaled, plain, levels=1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(condition=[10]), "class label 10 is out of range: this model's classes are 0 to 9"),
        (dict(condition=[-1]), "class label -1 is out of range"),
        (dict(condition=[]), "must be a list of one or more"),
        (dict(condition=[1], height=9), "height=9 is not a positive multiple of 2"),
        (dict(condition=[1], num_steps=2000), "sample.num_steps=2000 is more than"),
    ],
)
def test_bad_requests_are_named(pipeline, arguments, message):
    with pytest.raises(ConfigError, match=message):
        pipeline(**arguments)


def test_bad_options_are_named(pipeline):
    with pytest.raises(ConfigError, match="sample.sampler='dpm' is unknown"):
        pipeline.options(sampler="dpm")
    with pytest.raises(ConfigError, match="sample.rope_method=ntk needs rotary positions, which this model lacks"):
        pipeline([1], options=pipeline.options(rope_method="ntk"))


def test_exported_checkpoint_gives_the_same_model_and_images(pipeline, tmp_path):
    export_weights(tmp_path / "c", pipeline.params, pipeline.config, step=5)
    model, config = load_model(tmp_path / "c")
    assert config == pipeline.config
    x, t, y = np.ones((2, 8, 12, 1), np.float32), np.array([3, 900]), np.array([1, 10])
    expected = jax.jit(make_apply(network_of(config)))(pipeline.params, x, t, y)
    np.testing.assert_array_equal(model(x, t, y), expected)
    assert expected.shape == (2, 8, 12, 2)
    np.testing.assert_array_equal(LEDiTPipeline.from_checkpoint(tmp_path / "c")([1, 2]), pipeline([1, 2]))


def test_dtype_is_what_the_network_computes_in(pipeline, tmp_path):
    export_weights(tmp_path / "c", pipeline.params, pipeline.config, step=5)
    coarse = LEDiTPipeline.from_checkpoint(tmp_path / "c", dtype="bfloat16")
    x, t = np.ones((1, 8, 8, 1), np.float32), np.array([3])
    products = {
        name: str(jax.make_jaxpr(make_apply(pipe.network))(pipe.params, x, t, t)).count("bf16[")
        for name, pipe in (("float32", pipeline), ("bfloat16", coarse))
    }
    assert products["float32"] == 0 < products["bfloat16"]
    dtypes = {
        name: coarse.params[module][name].dtype for module, name in (("conv", "kernel"), ("label_embed", "embedding"))
    }
    assert dtypes == {"kernel": jnp.bfloat16, "embedding": np.float32}, "rounded once, and no more than products need"
    coarse.save_pretrained(tmp_path / "mine")
    whole = load_weights(resolve(tmp_path / "mine", cache_dir=tmp_path / "cache"))[0]
    jax.tree.map(np.testing.assert_array_equal, whole, pipeline.params)  # what is written is not rounded
    assert LEDiTPipeline.from_checkpoint(tmp_path / "c").config == pipeline.config
    with pytest.raises(ConfigError, match="model.dtype='float16' is unknown"):
        LEDiTPipeline.from_checkpoint(tmp_path / "c", dtype="float16")


@pytest.mark.parametrize("modules, seconds", [({}, 10.0), ({"ipykernel": None}, 0.1)], ids=["log", "notebook"])
def test_the_bar_moves_where_somebody_watches(pipeline, monkeypatch, modules, seconds):
    intervals = []
    monkeypatch.setattr("ledit_jax.progress.sys", SimpleNamespace(stderr=io.StringIO(), modules=modules))
    monkeypatch.setattr(
        "ledit_jax.progress.tqdm", lambda **bar: intervals.append(bar["mininterval"]) or tqdm(**bar, file=io.StringIO())
    )
    pipeline([1], progress="sample")
    assert intervals == [seconds]


def make_vae(levels, latent_channels=4):
    sizes = dict(block_out_channels=(2,) * levels, layers_per_block=1, norm_num_groups=2)
    return AutoencoderKL(VAEConfig(latent_channels=latent_channels, **sizes), nnx.Rngs(0))


def latent_config():
    config = tiny_config()
    data = dataclasses.replace(config.data, image_height=32, image_width=32, image_channels=3)
    return dataclasses.replace(config, data=data, autoencoder=AutoencoderConfig(kind="sd"))


def test_latents_are_scaled_and_decoded_whole_or_in_slices(monkeypatch):
    real, sliced = decoding.decode_latents, []
    monkeypatch.setattr(decoding, "decode_latents", lambda *args: sliced.append(args[3]) or real(*args))
    shift, std = (0.5, -1.0, 0.0, 2.0), (1.0, 2.0, 0.5, 1.5)
    config, vae = latent_config().replaced("autoencoder", latents_mean=shift, latents_std=std), make_vae(levels=4)
    pipeline = LEDiTPipeline(config, init_params(network_of(config), jax.random.key(0)), vae)
    images = pipeline([3, 7], height=32, width=48, num_steps=2)
    assert images.shape == (2, 32, 48, 3) and images.dtype == np.uint8
    latents = jax.random.normal(jax.random.key(1), (2, 4, 6, 4))
    decoded = jax.jit(lambda z: vae.decode(z))(latents * np.array(std) / 0.18215 + np.array(shift))
    want = np.clip(127.5 * np.asarray(decoded) + 128, 0, 255).astype(np.uint8)
    assert np.abs(pipeline.decode(latents).astype(int) - want).max() <= 1
    pipeline.decoder_gib = 2e-5
    assert np.abs(pipeline.decode(latents).astype(int) - want).max() <= 1 and sliced == [0, 0, 1]


@pytest.mark.parametrize(("vae", "message"), [((3, 4), "downsamples by 4 to 4"), ((4, 8), "downsamples by 8 to 8")])
def test_another_vae_is_refused(vae, message):
    config = latent_config()
    with pytest.raises(ConfigError, match=f"{message} channels, and this model's latents are downsampled by 8 with 4"):
        LEDiTPipeline(config, {}, make_vae(*vae))
    with pytest.raises(ConfigError, match="this model makes pixels, and no latents that a vae could decode"):
        LEDiTPipeline(tiny_config(), {}, make_vae(*vae))


class TestBrokenCheckpoints:
    @pytest.fixture
    def folder(self, pipeline, tmp_path):
        export_weights(tmp_path / "c", pipeline.params, pipeline.config, step=5)
        return tmp_path / "c"

    def test_missing(self, tmp_path):
        with pytest.raises(CheckpointError, match="does not exist"):
            load_weights(tmp_path / "nothing")

    def test_empty(self, tmp_path):
        with pytest.raises(CheckpointError, match="holds no steps"):
            load_weights(tmp_path)

    def test_half_written(self, folder):
        (folder / "5").rename(folder / "5.orbax-checkpoint-tmp")
        with pytest.raises(CheckpointError, match="half-written"):
            load_weights(folder)

    def test_without_commit_mark(self, folder):
        (folder / "5" / "_CHECKPOINT_METADATA").unlink()
        with pytest.raises(CheckpointError, match="half-written"):
            find_checkpoint(folder)

    def test_truncated_file(self, folder):
        largest = max((p for p in (folder / "5" / "ema").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
        with pytest.raises(CheckpointError, match="is damaged"):
            load_weights(folder)

    def test_other_weights(self, folder):
        with pytest.raises(CheckpointError, match="holds no params, only ema"):
            load_weights(folder, "params")

    def test_export_does_not_overwrite(self, folder, pipeline):
        with pytest.raises(OutputError, match="exists already"):
            export_weights(folder, pipeline.params, pipeline.config, step=6)
