"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598): a labelled denoiser becomes an unlabelled one.

Noise estimates are guided, variances never; where only some channels are, the others are the conditional ones.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ledit_jax.diffusion.schedule import Denoiser
from ledit_jax.errors import ConfigError

LabelledDenoiser = Callable[[Float[Array, "B H W C"], Int[Array, " B"], Int[Array, " B"]], Float[Array, "B H W D"]]
"""denoise(x, timesteps, labels), otherwise as `Denoiser`."""


def conditional(denoise: LabelledDenoiser, labels: Int[Array, " B"]) -> Denoiser:
    """The denoiser for these labels, unguided: one network call on the batch as it is."""
    return lambda x, timesteps: denoise(x, timesteps, labels)


def guided(
    denoise: LabelledDenoiser,
    labels: Int[Array, " B"],
    null_label: int,
    cfg_scale: float | Float[Array, ""],
    channels: str,
) -> Denoiser:
    """The denoiser null + cfg_scale (conditional - null), by one call on the doubled batch, conditional half first.

    `channels` "3" guides the first three channels of eps (or all, if there are fewer) and leaves the others and the
    variance at the conditional half's values: DiT's published numbers. "all" guides all of eps.
    DiT's own `forward_with_cfg` takes a batch already doubled and returns the guided channels twice over, with each
    half's own rest; the half it discards in the end is not returned here.

    A `cfg_scale` of the number 1 is `conditional`; a traced one is always run doubled.
    Raises ConfigError for other `channels`.
    """
    if channels not in ("3", "all"):
        raise ConfigError(f"cfg_channels={channels!r} is unknown: use 3 or all")
    if isinstance(cfg_scale, (int, float)) and cfg_scale == 1:
        return conditional(denoise, labels)
    both_labels = jnp.concatenate([labels, jnp.full_like(labels, null_label)])

    def denoise_guided(x: Float[Array, "B H W C"], timesteps: Int[Array, " B"]) -> Float[Array, "B H W D"]:
        both = denoise(jnp.concatenate([x, x]), jnp.concatenate([timesteps, timesteps]), both_labels)
        # In float32: the difference of two near-equal estimates is about to be multiplied.
        cond, null = jnp.split(both.astype(jnp.float32), 2)
        num_guided = x.shape[-1] if channels == "all" else min(3, x.shape[-1])
        eps = null[..., :num_guided] + cfg_scale * (cond - null)[..., :num_guided]
        return jnp.concatenate([eps, cond[..., num_guided:]], axis=-1)

    return denoise_guided


def guidance_mask(
    timesteps: Int[np.ndarray, " num_steps"], interval: tuple[float, float], num_timesteps: int
) -> Bool[np.ndarray, " num_steps"]:
    """Which steps are guided: those with timestep / num_timesteps in the closed interval (arXiv 2404.07724).

    `timesteps` are original ones, in visiting order. NumPy on the host, so that a step outside the interval can be
    run by a program that has no second half at all. Raises ConfigError if the interval is empty.
    """
    low, high = interval
    if low > high:
        raise ConfigError(f"cfg_interval={interval} is empty: the first value must not exceed the second")
    share = np.asarray(timesteps) / num_timesteps
    return (low <= share) & (share <= high)
