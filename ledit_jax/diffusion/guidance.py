"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598): a conditional denoiser becomes an unconditional one.

What is guided is the estimate in the first channels, as many as the data has; a variance behind it never is. Where only
some channels are guided, the others are the conditional ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, PyTree

from ledit_jax.diffusion.process import Denoiser
from ledit_jax.errors import ConfigError

Condition = PyTree[Array]
"""What a network is told: arrays with a leading batch axis."""

ConditionalDenoiser = Callable[[Float[Array, "B H W C"], Num[Array, "B ..."], Condition], Float[Array, "B H W D"]]
"""denoise(x, times, condition), otherwise as `Denoiser`."""


def conditional(denoise: ConditionalDenoiser, condition: Condition) -> Denoiser:
    """The denoiser for this condition, unguided: one network call on the batch as it is."""
    return lambda x, times: denoise(x, times, condition)


def guided(
    denoise: ConditionalDenoiser,
    condition: Condition,
    null: Condition,
    cfg_scale: float | Float[Array, ""],
    channels: str,
) -> Denoiser:
    """The denoiser null + cfg_scale (conditional - null), by one call on the doubled batch, conditional half first.

    `channels` "3" guides the first three channels of the estimate (or all, if there are fewer) and leaves the others
    and the variance at the conditional half's values: DiT's published numbers. "all" guides the whole estimate.
    DiT's own `forward_with_cfg` takes a batch already doubled and returns the guided channels twice over, with each
    half's own rest; the half it discards in the end is not returned here.

    A `cfg_scale` of the number 1 is `conditional`; a traced one is always run doubled.
    Raises ConfigError for other `channels`.
    """
    if channels not in ("3", "all"):
        raise ConfigError(f"cfg_channels={channels!r} is unknown: use 3 or all")
    if isinstance(cfg_scale, (int, float)) and cfg_scale == 1:
        return conditional(denoise, condition)
    both_conditions = jax.tree.map(lambda c, n: jnp.concatenate([c, n]), condition, null)

    def denoise_guided(x: Float[Array, "B H W C"], times: Num[Array, "B ..."]) -> Float[Array, "B H W D"]:
        both = denoise(jnp.concatenate([x, x]), jnp.concatenate([times, times]), both_conditions)
        # In float32: the difference of two near-equal estimates is about to be multiplied.
        cond, null = jnp.split(both.astype(jnp.float32), 2)
        num_guided = x.shape[-1] if channels == "all" else min(3, x.shape[-1])
        estimate = null[..., :num_guided] + cfg_scale * (cond - null)[..., :num_guided]
        return jnp.concatenate([estimate, cond[..., num_guided:]], axis=-1)

    return denoise_guided


def drop_condition(condition: Condition, null: Condition, key: jax.Array, probability: float) -> Condition:
    """The condition with a share of the samples told nothing, which is how a network learns what `guided` needs."""
    dropped = jax.random.bernoulli(key, probability, jax.tree.leaves(condition)[0].shape[:1])
    return jax.tree.map(lambda c, n: jnp.where(dropped.reshape(-1, *[1] * (c.ndim - 1)), n, c), condition, null)


def guidance_mask(
    times: Num[np.ndarray, " num_steps"], interval: tuple[float, float], end_time: float
) -> Bool[np.ndarray, " num_steps"]:
    """Which steps are guided: those with time / end_time in the closed interval (arXiv 2404.07724).

    `times` are the process's, in visiting order. NumPy on the host, so that a step outside the interval
    can be run by a program that has no second half at all. Raises ConfigError if the interval is empty.
    """
    low, high = interval
    if low > high:
        raise ConfigError(f"cfg_interval={interval} is empty: the first value must not exceed the second")
    share = np.asarray(times) / end_time
    return (low <= share) & (share <= high)
