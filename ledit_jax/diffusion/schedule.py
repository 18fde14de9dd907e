"""The noise schedule: DiT's linear betas, respaced sub-chains, and the Gaussians of a chain in closed form.

Constants are float64 NumPy up to the last coefficient, which is then gathered as float32: on a device 1 - alpha_bar
would lose half its digits near t = 0. Nothing here knows what the denoiser is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ledit_jax.diffusion.process import Denoiser
from ledit_jax.errors import ConfigError

ChainIndex = Int[Array, ""] | Int[Array, " B"] | int
"""Position in the (respaced) chain, 0 being the cleanest: one for all samples, or one for each. May be traced."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A chain of noise levels: all of the training timesteps, or some of them.

    Element i of the chain is timestep `timestep_map[i]` of training, and `alphas_cumprod[i]` (float64) is its
    alpha_bar. Both [n], the former ascending and the latter descending. `i` below is always a chain index.
    Equation numbers are those of Ho et al. 2020 (arXiv 2006.11239) unless said.
    """

    timestep_map: Int[np.ndarray, " n"]
    alphas_cumprod: Float[np.ndarray, " n"]

    @property
    def num_timesteps(self) -> int:
        """Length of the chain."""
        return len(self.timestep_map)

    @cached_property
    def alphas_cumprod_prev(self) -> Float[np.ndarray, " n"]:
        """alpha_bar of the next cleaner element; 1 (clean data) for the first."""
        return np.append(1.0, self.alphas_cumprod[:-1])

    @cached_property
    def betas(self) -> Float[np.ndarray, " n"]:
        """Betas of this chain, not of training: they bridge the left-out timesteps."""
        return 1.0 - self.alphas_cumprod / self.alphas_cumprod_prev

    @cached_property
    def posterior_log_variance(self) -> Float[np.ndarray, " n"]:
        """Log of the variance in eq. 7. It is 0 at i = 0, where the value at i = 1 stands in (as guided-diffusion)."""
        variance = self.betas * (1.0 - self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        if self.num_timesteps == 1:
            return np.log(self.betas)
        return np.log(np.append(variance[1], variance[1:]))

    def q_sample(
        self, x0: Float[Array, "B H W C"], t: ChainIndex, noise: Float[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """Noises clean data up to chain element t (eq. 4)."""
        return gather(np.sqrt(self.alphas_cumprod), t) * x0 + gather(np.sqrt(1.0 - self.alphas_cumprod), t) * noise

    def predict_noise(
        self, denoise: Denoiser, x: Float[Array, "B H W C"], i: ChainIndex
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B H W C"]]:
        """Runs the denoiser at chain element i, with its ORIGINAL timestep: (eps, v) in float32.

        Raises ValueError, while tracing, if the denoiser does not return 2C channels.
        """
        timesteps = jnp.broadcast_to(jnp.asarray(self.timestep_map, jnp.int32)[i], x.shape[:1])
        output = denoise(x, timesteps).astype(jnp.float32)
        expected = (*x.shape[:-1], 2 * x.shape[-1])
        if output.shape != expected:
            raise ValueError(f"the denoiser returned shape {output.shape} for x {x.shape}: it must return {expected}")
        eps, v = jnp.split(output, 2, axis=-1)
        return eps, v

    def predict_xstart(
        self, x: Float[Array, "B H W C"], i: ChainIndex, eps: Float[Array, "B H W C"], clip_denoised: bool = False
    ) -> Float[Array, "B H W C"]:
        """Clean data that the noise estimate implies (eq. 4 solved for x0), clipped to [-1, 1] if asked."""
        scale, noise_scale = np.sqrt(1.0 / self.alphas_cumprod), np.sqrt(1.0 / self.alphas_cumprod - 1.0)
        xstart = gather(scale, i) * x - gather(noise_scale, i) * eps
        return jnp.clip(xstart, -1.0, 1.0) if clip_denoised else xstart

    def posterior_mean(
        self, xstart: Float[Array, "B H W C"], x: Float[Array, "B H W C"], i: ChainIndex
    ) -> Float[Array, "B H W C"]:
        """Mean of q(x_{i-1} | x_i = x, x_0 = xstart) (eq. 7)."""
        noise_level = 1.0 - self.alphas_cumprod
        from_xstart = self.betas * np.sqrt(self.alphas_cumprod_prev) / noise_level
        from_x = (1.0 - self.alphas_cumprod_prev) * np.sqrt(1.0 - self.betas) / noise_level
        return gather(from_xstart, i) * xstart + gather(from_x, i) * x

    def model_log_variance(self, v: Float[Array, "B H W C"], i: ChainIndex) -> Float[Array, "B H W C"]:
        """Learned-range log-variance: from the posterior's at v = -1 to beta's at v = 1.

        Improved DDPM, arXiv 2102.09672, eq. 15, with (v + 1) / 2 for its v, as in guided-diffusion and DiT.
        """
        fraction = (v + 1.0) / 2.0
        return fraction * gather(np.log(self.betas), i) + (1.0 - fraction) * gather(self.posterior_log_variance, i)


def gather(table: Float[np.ndarray, " n"], i: ChainIndex) -> Float[Array, "#B 1 1 1"]:
    """Entries i of a float64 table as float32, shaped to multiply a batch of NHWC arrays."""
    return jnp.asarray(table, jnp.float32)[i].reshape(-1, 1, 1, 1)


def linear_alphas_cumprod(num_timesteps: int, beta_start: float, beta_end: float) -> Float[np.ndarray, " n"]:
    """alpha_bar in float64 for betas linear from `beta_start` to `beta_end`, both in (0, 1).

    Raises ConfigError for an empty chain or betas outside (0, 1).
    """
    if num_timesteps < 1:
        raise ConfigError(f"diffusion.num_timesteps={num_timesteps} must be greater than 0")
    for name, beta in (("beta_start", beta_start), ("beta_end", beta_end)):
        if not 0.0 < beta < 1.0:
            raise ConfigError(f"diffusion.{name}={beta} must lie strictly between 0 and 1")
    return np.cumprod(1.0 - np.linspace(beta_start, beta_end, num_timesteps, dtype=np.float64))


def space_timesteps(num_timesteps: int, timestep_respacing: str | Sequence[int] | None) -> Int[np.ndarray, " n"]:
    """The timesteps that a respacing keeps, ascending; matches guided-diffusion's function of this name.

    timestep_respacing: "" or None keeps all; "250" keeps 250 evenly spread from the first to the last, rounded;
    "10,10,20" splits the chain in equal sections and spreads that many within each; "ddim50" keeps 0, s, 2s, ...
    for the integer stride s that yields exactly 50. Sections may also be a list of counts.
    Raises ConfigError for other text, more steps than a section holds, or a ddim count that no stride yields.
    """
    if isinstance(timestep_respacing, Sequence) and not isinstance(timestep_respacing, str):
        timestep_respacing = ",".join(map(str, timestep_respacing))
    if timestep_respacing is None or timestep_respacing == "":
        return np.arange(num_timesteps)
    if not isinstance(timestep_respacing, str):
        raise ConfigError(f"timestep_respacing={timestep_respacing!r:.80} is no text, as 250 or ddim50 in quotes")
    if timestep_respacing.startswith("ddim"):
        return _strided(num_timesteps, timestep_respacing)
    words = timestep_respacing.split(",")
    if not all(len(word) < 10 and word.strip().isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(
            f"timestep_respacing={timestep_respacing!r:.80} is not understood: use an empty string, a count such as "
            "250, counts such as 10,10,20, or ddim50"
        )
    if len(words) > num_timesteps:
        raise ConfigError(
            f"timestep_respacing={timestep_respacing!r} has {len(words)} sections, and num_timesteps={num_timesteps}: "
            "use fewer"
        )
    kept = []
    sections = np.array_split(np.arange(num_timesteps), len(words))
    for section, count in zip(sections, map(int, words), strict=True):
        if count > len(section):
            raise ConfigError(
                f"timestep_respacing={timestep_respacing!r} wants {count} of the {len(section)} timesteps of a "
                f"section (num_timesteps={num_timesteps}): use at most {len(section)}"
            )
        stride = (len(section) - 1) / max(count - 1, 1)
        # Running sum, then round half to even: the order of rounding errors decides exact halves.
        offsets = np.rint(np.cumsum(np.append(0.0, np.full(count - 1, stride))))
        kept.append(section[offsets.astype(int)])
    return np.concatenate(kept)


def _strided(num_timesteps: int, timestep_respacing: str) -> Int[np.ndarray, " n"]:
    word = timestep_respacing.removeprefix("ddim")
    counts = {-(-num_timesteps // stride): stride for stride in range(max(num_timesteps - 1, 1), 0, -1)}
    if len(word) > 9:
        raise ConfigError(f"timestep_respacing={timestep_respacing!r:.80} is not understood: use ddim50 and its kind")
    if word.isdecimal() and int(word) in counts:
        return np.arange(0, num_timesteps, counts[int(word)])
    nearby = sorted(counts, key=lambda count: abs(count - int(word)))[:2] if word.isdecimal() else [25, 50]
    raise ConfigError(
        f"timestep_respacing={timestep_respacing!r}: no integer stride through num_timesteps={num_timesteps} yields "
        f"that count: use {' or '.join(f'ddim{count}' for count in sorted(nearby))}"
    )


def respace(alphas_cumprod: Float[np.ndarray, " t"], timesteps: Int[np.ndarray, " n"]) -> NoiseSchedule:
    """The sub-chain of these ascending timesteps."""
    return NoiseSchedule(timesteps, alphas_cumprod[timesteps])
