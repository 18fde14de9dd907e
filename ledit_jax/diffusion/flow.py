"""Flow matching: the network learns the velocity of an interpolant between data and noise (SiT, arXiv 2401.08740).

Time is noise-time: 0 is data, 1 is noise. What a network is fed and returns may be turned or scaled, see
`FlowProcess.convention` and `time_scale`.
"""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from ledit_jax.config import SampleConfig, resolve_shift
from ledit_jax.diffusion import flow_samplers
from ledit_jax.diffusion.flow_samplers import FlowSampler, FlowSDE, MeanFlowSampler
from ledit_jax.diffusion.interpolant import Interpolant, shift_times
from ledit_jax.diffusion.process import Denoiser, Images, Process, Sampler
from ledit_jax.errors import ConfigError, nearest

Times = Num[Array, " B"] | Num[Array, "B 2"]
"""Noise-times; for MeanFlow the two ends t >= r of a jump."""

_SAMPLERS = ("euler", "heun", "ab2", "dpmpp", "sde")

# MeanFlow's adaptive loss (arXiv 2505.13447, section 4.3): error / (error + c) with the denominator held constant.
_ADAPTIVE_FLOOR = 1e-3


@dataclass(frozen=True)
class FlowProcess(Process):
    """An interpolant by its velocity; the network predicts C channels, or 2C of which the second half is dropped.

    path: see `Interpolant`. draw: of times in training, "uniform" or "logit_normal", the latter of mean and deviation
    `times_mean` and `times_std`; `train_shift` then shifts them. time_scale: the network is fed time_scale t.
    convention: "noise_time" is fed t and returns C channels; "sit" is fed 1 - t and returns 2C, as the weights of SiT
    are made.

    mean_flow_share: 0 is plain flow matching. Above it the network learns average velocities (MeanFlow): it is fed
    [B, 2], t and t - r, and this share of a batch trains on r < t.

    time_shift: in sampling, see `resolve_shift`, of images of another number of tokens than base_tokens.
    sde_diffusion: of the sampler "sde". clip_denoised: dpmpp clips its estimates of clean data to [-1, 1]; for pixels.
    """

    path: str = "linear"
    draw: str = "uniform"
    times_mean: float = 0.0
    times_std: float = 1.0
    train_shift: float = 1.0
    time_scale: float = 1.0
    convention: str = "noise_time"
    mean_flow_share: float = 0.0
    base_tokens: int | None = None
    time_shift: str = "none"
    sde_diffusion: str = "sigma"
    clip_denoised: bool = False
    end_time = 1.0

    def for_sampling(self, options: SampleConfig) -> "FlowProcess":
        return replace(self, time_shift=options.time_shift, sde_diffusion=options.sde_diffusion)

    def out_channels(self, channels: int) -> int:
        return 2 * channels if self.convention == "sit" else channels

    def fed_times(self, times: Times) -> Times:
        if times.ndim == 2:
            t, r = times[:, 0], times[:, 1]
            return jnp.stack([self.fed_times(t), self.time_scale * (t - r)], axis=1)
        return self.time_scale * (1.0 - times if self.convention == "sit" else times)

    def draw_times(self, key: jax.Array, batch_size: int) -> Float[Array, " B"] | Float[Array, "B 2"]:
        if not self.mean_flow_share:
            return self._draw(key, (batch_size,))
        times_key, equal_key = jax.random.split(key)
        t, r = jnp.sort(self._draw(times_key, (2, batch_size)), axis=0)[::-1]
        r = jnp.where(jax.random.bernoulli(equal_key, self.mean_flow_share, (batch_size,)), r, t)
        return jnp.stack([t, r], axis=1)

    def add_noise(self, x0: Images, times: Times, noise: Images) -> Images:
        return self._path.add_noise(x0, _starts(times), noise)

    def training_losses(
        self, denoise: Denoiser, x0: Images, times: Times, noise: Images
    ) -> dict[str, Float[Array, " B"]]:
        """The velocity's mean squared error. For MeanFlow see `_mean_flow_target`; its "mse" is unweighted."""
        t = _starts(times)
        x, velocity = self._path.add_noise(x0, t, noise), self._path.velocity(x0, t, noise)
        if times.ndim == 1:
            error = self.velocity(denoise, x, times) - velocity
            return {"loss": jnp.mean(error**2, axis=(1, 2, 3))}
        average, target = self._mean_flow_target(denoise, x, times, velocity)
        squared = jnp.sum((average - target) ** 2, axis=(1, 2, 3))
        loss = squared / jax.lax.stop_gradient(squared + _ADAPTIVE_FLOOR)
        return {"loss": loss, "mse": squared / x0[0].size}

    def velocity(self, denoise: Denoiser, x: Images, times: Times) -> Images:
        """What the network says, in noise-time and without the channels that nobody reads, float32.

        At times [B] of a MeanFlow network this is its average over an empty interval: the velocity itself. Raises
        ValueError, while tracing, if the denoiser does not return `out_channels`.
        """
        if self.mean_flow_share and times.ndim == 1:
            times = jnp.stack([times, times], axis=1)
        output = denoise(x, self.fed_times(times)).astype(jnp.float32)
        expected = (*x.shape[:-1], self.out_channels(x.shape[-1]))
        if output.shape != expected:
            raise ValueError(f"the denoiser returned shape {output.shape} for x {x.shape}: it must return {expected}")
        return output[..., : x.shape[-1]]

    def clean(self, denoise: Denoiser, x: Images, times: Float[Array, " B"]) -> Images:
        """The estimate of clean data behind the velocity."""
        clean = self._path.clean(x, times, self.velocity(denoise, x, times))
        return jnp.clip(clean, -1.0, 1.0) if self.clip_denoised else clean

    def make_sampler(self, name: str, num_steps: int, num_tokens: int | None = None) -> Sampler:
        """ "euler", "heun", "ab2" and "dpmpp" (multistep), "sde" (SiT's) or "meanflow"; num_steps network calls."""
        shift, path = resolve_shift(self.time_shift, num_tokens, self.base_tokens), self._path
        names = (*_SAMPLERS, "meanflow") if self.mean_flow_share else _SAMPLERS
        if name not in names:
            raise ConfigError(f"sampler={name!r} is none of this flow's: {nearest(name, names)}")
        if num_steps < 1:
            raise ConfigError(f"num_steps={num_steps} must be greater than 0")
        if name == "sde":
            return FlowSDE(path, num_steps, shift, self.sde_diffusion, self.velocity)
        if name == "meanflow":
            return MeanFlowSampler(num_steps, shift, self.velocity)
        if name == "dpmpp":
            return FlowSampler(*flow_samplers.dpmpp(num_steps, shift, path), self.clean)
        solver = {"euler": flow_samplers.euler, "heun": flow_samplers.heun, "ab2": flow_samplers.ab2}[name]
        return FlowSampler(*solver(num_steps, shift), self.velocity)

    @functools.cached_property
    def _path(self) -> Interpolant:
        return Interpolant(self.path)

    def _draw(self, key: jax.Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
        if self.draw == "uniform":
            t = jax.random.uniform(key, shape)
        else:
            t = jax.nn.sigmoid(self.times_mean + self.times_std * jax.random.normal(key, shape))
        return t if self.train_shift == 1.0 else shift_times(t, self.train_shift)

    def _mean_flow_target(
        self, denoise: Denoiser, x: Images, times: Float[Array, "B 2"], velocity: Images
    ) -> tuple[Images, Images]:
        """(u, what it should be) for the average velocity u(x, t, r).

        MeanFlow's identity (arXiv 2505.13447, eq. 6): u = v - (t - r) du/dt, where du/dt follows the path, along which
        x changes by v. It is a Jacobian-vector product, so a step costs one more forward pass.
        """

        def average(x, t):
            return self.velocity(denoise, x, jnp.stack([t, times[:, 1]], axis=1))

        t = times[:, 0]
        u, change = jax.jvp(average, (x, t), (velocity, jnp.ones_like(t)))
        span = (t - times[:, 1]).reshape(-1, 1, 1, 1)
        return u, jax.lax.stop_gradient(velocity - span * change)


def _starts(times: Times) -> Float[Array, " B"]:
    return times if times.ndim == 1 else times[:, 0]
