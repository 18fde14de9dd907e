"""From a checkpoint to images: what sample.py, the notebook and the sample grids of a run call."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, UInt8

from ledit_jax.config import Config, SampleConfig
from ledit_jax.diffusion.guidance import guidance_mask
from ledit_jax.diffusion.samplers import sample_keys, sample_noise
from ledit_jax.errors import ConfigError
from ledit_jax.models.functional import Params, make_apply
from ledit_jax.models.vae import AutoencoderKL
from ledit_jax.ops.attention import attention_scale
from ledit_jax.parallel.processes import gather, shard_arrays
from ledit_jax.progress import progress_bar
from ledit_jax.sampling.denoising import make_denoising_step
from ledit_jax.weights import load_vae, load_weights


def load_model(checkpoint: str | Path, weights: str = "ema") -> tuple[Callable[..., jax.Array], Config]:
    """(model, config) of a checkpoint; weights is "ema" or "params".

    `model(x, t, y)` takes x float [B, H, W, C], timesteps int [B] in 0 .. 999 and labels int [B], and returns
    [B, H, W, 2C]: noise, then the variance's interpolation. Keywords: `logit_scale` (attention scaling).
    Raises CheckpointError for a folder that is missing, half-written or damaged.
    """
    params, config, _ = load_weights(checkpoint, weights)
    config = with_any_backend(config)
    apply = jax.jit(make_apply(config), static_argnames=("dilation", "rope_method"))
    return functools.partial(apply, params), config


class LEDiTPipeline:
    """Class-conditional sampling at any size that the model's granularity divides."""

    def __init__(
        self,
        config: Config,
        params: Params,
        vae: AutoencoderKL | None = None,
        devices: Sequence[jax.Device] | None = None,
    ):
        """params and vae: as `load_weights` and `load_vae` return them.

        Samples are spread over `devices`, by default all there are: with several processes, each of them then makes
        the same calls and gets all images.

        Raises ConfigError for a model of latents without a vae, or with one of another shape of latents.
        """
        if vae is None and config.autoencoder.kind != "none":
            raise ConfigError(
                "this model makes latents, and decoding them needs a VAE: give --vae (sample.py), vae (from Python) "
                "or autoencoder.checkpoint (train.py), a VAE checkpoint of ours"
            )
        if vae is not None:
            _check_vae(vae, config)
        self.config = config
        self.mesh = Mesh(np.asarray(devices or jax.devices()), ("data",))
        self.vae = None
        if vae is not None:
            graphdef, state = nnx.split(vae)
            self.vae = graphdef, shard_arrays(state, NamedSharding(self.mesh, P()))
        self.set_params(params)

    def set_params(self, params: Params) -> None:
        """Replaces the weights; compiled programs are kept."""
        self.params = shard_arrays(params, NamedSharding(self.mesh, P()))

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        weights: str = "ema",
        vae: str | Path | None = None,
        dtype: str | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> "LEDiTPipeline":
        """Loads a workdir, a folder of checkpoints or one step's folder. Raises CheckpointError.

        vae: a VAE checkpoint, for models of latents; by default the one that the config names. dtype: what the
        network's matrix products compute in, "float32" or "bfloat16"; by default what the config says. Raises
        ConfigError for another one.
        """
        params, config, _ = load_weights(checkpoint, weights)
        config = with_any_backend(config)
        if dtype is not None:
            settings = config.to_dict()
            settings["model"]["dtype"] = dtype
            config = Config.from_dict(settings)
        vae = vae or config.autoencoder.checkpoint
        return cls(config, params, load_vae(vae) if vae else None, devices)

    def __call__(
        self,
        class_labels: Sequence[int],
        height: int | None = None,
        width: int | None = None,
        num_steps: int | None = None,
        cfg_scale: float | None = None,
        seed: int = 0,
        *,
        sampler: str | None = None,
        cfg_channels: str | None = None,
        cfg_interval: tuple[float, float] | None = None,
        attention_scaling: bool | None = None,
        rope_method: str | None = None,
        batch_size: int = 64,
        progress: str | None = None,
    ) -> UInt8[np.ndarray, "B H W C"]:
        """Images of the given classes, uint8 [B, height, width, C] (C 3, or 1 for a grey model).

        See `batches` for seed, batch_size, progress and errors, and SampleConfig for the sampler's settings, which
        come from the checkpoint's config where they are None.
        """
        options = self.options(
            sampler=sampler,
            num_steps=num_steps,
            cfg_scale=cfg_scale,
            cfg_channels=cfg_channels,
            cfg_interval=cfg_interval,
            attention_scaling=attention_scaling,
            rope_method=rope_method,
        )
        batches = self.batches(
            class_labels, height, width, options=options, seed=seed, batch_size=batch_size, progress=progress
        )
        return np.concatenate(list(batches))

    def options(self, **overrides: object) -> SampleConfig:
        """The checkpoint's sampling settings with the given SampleConfig fields replaced; None replaces nothing."""
        return sample_options(self.config, **overrides)

    def batches(
        self,
        class_labels: Sequence[int],
        height: int | None = None,
        width: int | None = None,
        *,
        options: SampleConfig,
        seed: int = 0,
        batch_size: int = 64,
        progress: str | None = None,
    ) -> Iterator[UInt8[np.ndarray, "B H W C"]]:
        """Images batch by batch, for more of them than memory holds.

        Sizes are in pixels, by default the training size. Image i is a function of (seed, i) alone, whatever the
        batch size and the number of devices. progress: the caption of a progress bar; None shows none. Raises
        ConfigError, before anything runs, for a label or a size that cannot be.
        """
        labels = self.check(class_labels, height, width)
        batch_size = -(-min(batch_size, len(labels)) // self.mesh.size) * self.mesh.size
        return self._generate(labels, height, width, options, seed, batch_size, progress)

    def check(self, class_labels: Sequence[int], height: int | None, width: int | None) -> Int[np.ndarray, " B"]:
        """The labels as an array. Raises ConfigError for a label or a size, in pixels, that cannot be."""
        self.config.latent_shape(height, width)
        return _check_labels(class_labels, self.config.model.num_classes)

    def _generate(self, labels, height, width, options, seed, batch_size, progress):
        steps = options.num_steps * -(-len(labels) // batch_size)
        # Seconds between updates of the bar. Somebody watches a terminal or a notebook; a log wants few lines.
        with progress_bar(progress, steps, "step", disable=progress is None) as bar:
            for start in range(0, len(labels), batch_size):
                batch = labels[start : start + batch_size]
                # The last batch is filled up, so that one compiled program serves all.
                padded, indices = np.resize(batch, batch_size), start + np.arange(batch_size)
                latents = self.sample_latents(padded, indices, height, width, options, seed, bar.update)
                yield self.decode(latents)[: len(batch)]

    def sample_latents(
        self,
        labels: np.ndarray,
        indices: np.ndarray,
        height: int | None,
        width: int | None,
        options: SampleConfig,
        seed: int,
        on_step: Callable[[int], object] = lambda n: None,
    ) -> Float[Array, "B H W C"]:
        """Runs one batch through the sampler on the host's loop; `on_step(1)` is called after each step."""
        shape = self.config.latent_shape(height, width)
        tokens = self.config.num_tokens(height, width), self.config.num_tokens()
        logit_scale = attention_scale(*tokens) if options.attention_scaling else 1.0
        sampler, step_fn = make_denoising_step(
            self.config, self.mesh, options.sampler, options.num_steps, options.cfg_channels, options.rope_method
        )
        is_guided = guidance_mask(sampler.timesteps, options.cfg_interval, self.config.diffusion.num_timesteps)
        is_guided &= options.cfg_scale != 1.0

        indices, labels = shard_arrays((indices, labels), NamedSharding(self.mesh, P("data")))
        keys = sample_keys(seed, indices)
        state = sampler.init(sample_noise(keys, shape))
        for step in range(sampler.num_steps):
            state = step_fn(
                self.params, state, step, keys, labels, options.cfg_scale, logit_scale, bool(is_guided[step])
            )
            # Waiting here keeps the bar honest and costs nothing: a step outlasts its dispatch by far.
            jax.block_until_ready(state)
            on_step(1)
        return sampler.sample(state)

    def decode(self, latents: Float[Array, "B H W C"]) -> UInt8[np.ndarray, "B height width channels"]:
        """Samples to bytes, trunc(clamp(127.5 x + 128, 0, 255)) as DiT saves them; latents go through the VAE."""
        if self.vae is not None:
            latents = _decode_latents(*self.vae, latents / self.config.autoencoder.scale)
        return gather(jnp.clip(127.5 * latents + 128.0, 0, 255).astype(jnp.uint8))


def sample_options(config: Config, **overrides: object) -> SampleConfig:
    """A config's sampling settings with the given SampleConfig fields replaced; None replaces nothing."""
    settings = config.to_dict()
    settings["sample"] |= {name: value for name, value in overrides.items() if value is not None}
    return Config.from_dict(settings).sample


@functools.partial(jax.jit, static_argnums=0)
def _decode_latents(graphdef, state, latents):
    # One image at a time: at 1024x1024 the decoder takes gigabytes for each.
    return nnx.merge(graphdef, state).decode_sliced(latents)


def with_any_backend(config: Config) -> Config:
    """The config with the attention backend left open: a model trained with a TPU's kernel samples anywhere."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, attention="auto"))


def _check_vae(vae: AutoencoderKL, config: Config) -> None:
    found = 2 ** (len(vae.config.block_out_channels) - 1), vae.config.latent_channels
    needed = config.downsample, config.in_channels
    if config.autoencoder.kind != "none" and found != needed:
        raise ConfigError(
            f"the VAE downsamples by {found[0]} to {found[1]} channels, and this model's latents are downsampled by "
            f"{needed[0]} with {needed[1]} channels: give the VAE that it was trained with"
        )


def _check_labels(labels: Sequence[int], num_classes: int) -> np.ndarray:
    labels = np.asarray(labels, np.int32)
    if labels.ndim != 1 or not labels.size:
        raise ConfigError(f"class_labels={labels.tolist()} must be a list of one or more class numbers")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ConfigError(f"class label {wrong[0]} is out of range: this model's classes are 0 to {num_classes - 1}")
    return labels
