"""From a checkpoint to images: what sample.py, the notebook and the sample grids of a run call."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PyTree, UInt8

from ledit_jax.config import Config, SampleConfig
from ledit_jax.data.caption_states import TextEncoder
from ledit_jax.diffusion import Process, guidance_mask, make_process, sample_keys, sample_noise
from ledit_jax.hub import resolve, save_pretrained
from ledit_jax.models import Network, Params, make_network
from ledit_jax.models.autoencoders import Autoencoder
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.parallel.processes import shard_arrays
from ledit_jax.parallel.sharding import batch_sharding
from ledit_jax.progress import progress_bar
from ledit_jax.sampling.decoding import decode, place_vae
from ledit_jax.sampling.denoising import make_denoising_step
from ledit_jax.sampling.loading import find_vae
from ledit_jax.sampling.prompts import Asked, Prompts, with_empty_caption
from ledit_jax.sampling.requests import check_memory, check_numbers, check_options
from ledit_jax.weights import load_vae, load_weights, make_text_encoder
from ledit_jax.weights.about import About, load_about


class LEDiTPipeline:
    """Conditional sampling at any size that the model's granularity divides."""

    decoder_gib: float | None = None
    """Memory that decoding an image may take, see `decode`: set it where other programs share the device."""

    def __init__(
        self,
        config: Config,
        params: Params,
        vae: Autoencoder | None = None,
        devices: Sequence[jax.Device] | None = None,
        network: Network | None = None,
        process: Process | None = None,
        text_encoder: TextEncoder | None = None,
    ):
        """params and vae: as `load_weights` and `load_vae` return them.

        Samples are spread over `devices`, by default all there are: with several processes, each of them then makes
        the same calls and gets all images. network and process: in the place of those that the config describes.
        text_encoder: makes states of prompts, for a model that draws from text.

        Raises ConfigError for a model of latents without a vae, or with one of another shape of latents.
        """
        self.config = config
        self.process = process or make_process(config)
        self.network = network or make_network(config, self.process)
        self.prompts = Prompts(self.network.condition, text_encoder)
        self.mesh = data_mesh(devices or jax.devices())
        self.vae = place_vae(vae, config, self.mesh)
        self.about, self.step = About(), 0
        self.set_params(params)

    def set_params(self, params: Params) -> None:
        """Replaces the weights; compiled programs are kept. The devices hold them as the network's products read them,
        and the host, where that rounds them, as they came: for `save_pretrained`."""
        rounded = self.network.rounded(params)
        is_same = jax.tree.leaves(jax.tree.map(lambda a, b: a.dtype == b.dtype, params, rounded))
        self._exact = {} if all(is_same) else jax.device_get(params)
        self.params = shard_arrays(rounded, NamedSharding(self.mesh, P()))

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        weights: str = "ema",
        vae: str | Path | None = None,
        dtype: str | None = None,
        devices: Sequence[jax.Device] | None = None,
        text_encoder: str | Path | None = None,
    ) -> "LEDiTPipeline":
        """Loads a workdir, a folder of checkpoints or one step's folder. Raises CheckpointError.

        vae: a VAE checkpoint, for models of latents; by default the one that the config names. dtype: what the
        network's matrix products compute in, "float32" or "bfloat16"; by default what the config says. text_encoder: a
        text encoder's checkpoint, for models that draw from text; by default the one that the config names, if any.
        Either may be a model of the hub, hf://org/name. Raises ConfigError for another dtype, and for an encoder that
        the model was not trained with.
        """
        checkpoint = resolve(checkpoint)
        params, config, step = load_weights(checkpoint, weights)
        config = config.for_any_device()
        if dtype is not None:
            config = config.replaced("model", dtype=dtype)
        about = load_about(checkpoint)
        vae = find_vae(config, about, vae)
        text = resolve(text_encoder or config.text.checkpoint or about.text_encoder)
        encoder = make_text_encoder(dataclasses.replace(config.text, checkpoint=text)) if text else None
        if encoder:
            params = with_empty_caption(params, encoder, text)
        pipeline = cls(config, params, load_vae(vae) if vae else None, devices, text_encoder=encoder)
        pipeline.about, pipeline.step = about, step
        return pipeline

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        weights: str = "ema",
        vae: str | Path | None = None,
        dtype: str | None = None,
        devices: Sequence[jax.Device] | None = None,
        text_encoder: str | Path | None = None,
    ) -> "LEDiTPipeline":
        """A model of the hub, org/name; a folder or file of PyTorch's; what `save_pretrained` wrote; a checkpoint.

        For the first five see `ledit_jax.hub.resolve`, for the rest `from_checkpoint`.
        """
        access = dict(revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
        return cls.from_checkpoint(resolve(name, bare=True, **access), weights, vae, dtype, devices, text_encoder)

    def save_pretrained(self, folder: str | Path, vae: str | None = None, license: str | None = None) -> None:
        """Writes the model as a new folder that `from_pretrained` takes, and a hub's upload command.

        vae: a model of the hub, hf://org/name, that is referred to in the place of a copy. license: of the weights, by
        default that of those that they come from, where it is known. Errors as `ledit_jax.hub.save_pretrained`.
        """
        said = dict(autoencoder=vae or self.about.autoencoder, license=license or self.about.license)
        about = dataclasses.replace(self.about, **said)
        autoencoder = nnx.merge(self.vae.graphdef, self.vae.state) if self.vae else None
        weights = self._exact or self.params
        save_pretrained(folder, weights, self.config, step=self.step, about=about, vae=autoencoder)

    def __call__(
        self,
        condition: Sequence[Any],
        height: int | None = None,
        width: int | None = None,
        num_steps: int | None = None,
        cfg_scale: float | None = None,
        seed: int = 0,
        *,
        negative_prompt: str | None = None,
        options: SampleConfig | None = None,
        batch_size: int = 64,
        progress: str | None = None,
    ) -> UInt8[np.ndarray, "B height width C"]:
        """Images of the given classes or prompts, or of what else the network's condition takes; C is 3, or 1 for grey.

        num_steps, cfg_scale and negative_prompt replace those of `options`, which are by default the checkpoint's. For
        the rest see `batches`.
        """
        options = self.options(options, num_steps=num_steps, cfg_scale=cfg_scale, negative_prompt=negative_prompt)
        more = dict(options=options, seed=seed, batch_size=batch_size, progress=progress)
        return np.concatenate(list(self.batches(condition, height, width, **more)))

    def options(self, options: SampleConfig | None = None, **overrides: object) -> SampleConfig:
        """Sampling settings, by default the checkpoint's, with the given fields replaced; None replaces nothing."""
        chosen = {name: value for name, value in overrides.items() if value is not None}
        config = self.config if options is None else dataclasses.replace(self.config, sample=check_options(options))
        return config.replaced("sample", **chosen).sample

    def batches(
        self,
        condition: Sequence[Any],
        height: int | None = None,
        width: int | None = None,
        *,
        options: SampleConfig,
        seed: int = 0,
        batch_size: int = 64,
        progress: str | None = None,
    ) -> Iterator[UInt8[np.ndarray, "B height width C"]]:
        """Images batch by batch, for more of them than memory holds.

        condition: one value for each image: a class, or a text, or a text's states. Sizes are in pixels, by default the
        training size. Image i is a function of (seed, i) alone, whatever the batch size and the number of devices.
        progress: the caption of a progress bar; None shows none. Raises ConfigError, before anything runs, for a
        condition, a size or options that cannot be.
        """
        check_numbers(height, width, batch_size, seed)
        asked = self.check(condition, height, width)
        each = -(-min(batch_size, len(asked)) // self.mesh.size)
        check_memory(self.config, self.network, self.mesh, options, batch_size, each, height, width)
        self.denoising_step(height, width, options)
        return self._generate(asked, height, width, options, seed, each * self.mesh.size, progress)

    def check(self, condition: Sequence[Any], height: int | None, width: int | None) -> Asked:
        """What the images are to show. Raises ConfigError for what, or a size in pixels, that cannot be."""
        self.config.latent_shape(height, width)
        return self.prompts.ask(condition)

    def denoising_step(self, height: int | None, width: int | None, options: SampleConfig):
        """(sampler, compiled step) for a size in pixels, see `make_denoising_step`."""
        network, process = self.network.for_sampling(options), self.process.for_sampling(options)
        given = options.sampler, options.num_steps, self.config.num_tokens(height, width), options.cfg_channels
        return make_denoising_step(network, process, self.mesh, *given)

    def _generate(self, asked, height, width, options, seed, batch_size, progress):
        count = len(asked)
        steps = options.num_steps * -(-count // batch_size)
        with progress_bar(progress, steps, "step", disable=progress is None) as bar:
            for start in range(0, count, batch_size):
                # The last batch is filled up, so that one compiled program serves all.
                indices = start + np.arange(batch_size)
                places = start + np.arange(batch_size) % (min(start + batch_size, count) - start)
                given = asked.take(places), indices, height, width, options, seed
                latents = self.sample_latents(*given, on_state=lambda step, _: bar.update(int(step > 0)))
                yield self.decode(latents)[: count - start]

    def sample_latents(
        self,
        condition: PyTree[np.ndarray],
        indices: np.ndarray,
        height: int | None,
        width: int | None,
        options: SampleConfig,
        seed: int,
        on_state: Callable[[int, jax.Array], object] = lambda step, latents: None,
    ) -> Float[Array, "B H W C"]:
        """Runs one batch through the sampler on the host's loop; on_state(n, latents) sees what n steps have made."""
        sampler, step_fn = self.denoising_step(height, width, options)
        is_guided = guidance_mask(sampler.times, options.cfg_interval, self.process.end_time)
        is_guided &= options.cfg_scale != 1.0
        null = self.prompts.null(options.negative_prompt, len(indices))
        indices, condition, null = shard_arrays((indices, condition, null), batch_sharding(self.mesh))
        keys = sample_keys(seed, indices)
        state = sampler.init(sample_noise(keys, self.config.latent_shape(height, width)))
        on_state(0, sampler.sample(state))
        for step in range(sampler.num_steps):
            scale, guides = options.cfg_scale, bool(is_guided[step])
            state = step_fn(self.params, state, step, keys, condition, null, scale, guides)
            # Waiting here keeps the bar honest and costs nothing: a step outlasts its dispatch by far.
            jax.block_until_ready(state)
            on_state(step + 1, sampler.sample(state))
        return sampler.sample(state)

    def decode(self, latents: Float[Array, "B H W C"]) -> UInt8[np.ndarray, "B height width channels"]:
        """Samples to bytes, see `ledit_jax.sampling.decoding.decode`."""
        return decode(self.vae, self.config, latents, self.decoder_gib)
