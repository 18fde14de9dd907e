"""Scaled dot-product attention over a 2-D causal scan: one entry point, several backends with the same numbers.

B batch, T tokens (of an image, row-major over an h x w grid, and before them a prefix), N heads, K head dim.
"""

import math

import numpy as np
from jaxtyping import Array, Bool, Float

from ledit_jax.errors import ConfigError, nearest
from ledit_jax.ops import cudnn_attention, splash_attention
from ledit_jax.ops.dense_attention import reference_attention, xla_attention
from ledit_jax.ops.platform import current_platform

_DENSE = {"reference": reference_attention, "xla": xla_attention}
_FUSED = {"cudnn": cudnn_attention.cudnn_attention, "splash": splash_attention.splash_attention}
_OBSTACLES = {"cudnn": cudnn_attention.obstacle, "splash": splash_attention.obstacle}
# Below it XLA's own program moves fewer bytes; docs/attention.md has the counts.
_SPLASH_FROM_TOKENS = 256


def attention(
    q: Float[Array, "B T N K"],
    k: Float[Array, "B T N K"],
    v: Float[Array, "B T N K"],
    *,
    grid: tuple[int, int],
    scan: str = "none",
    causal: Bool[Array, " B"] | None = None,
    logit_scale: float | np.float32 | Float[Array, ""] = 1.0,
    bias: Float[Array, "N T T"] | None = None,
    num_prefix: int = 0,
    backend: str = "auto",
    precision: str | None = None,
) -> Float[Array, "B T N K"]:
    """softmax(logit_scale * q k^T / sqrt(K), over the keys that `scan` shows) v, in the dtype of q.

    grid: (h, w) with num_prefix + h * w = T. num_prefix: so many tokens before those of the image, such as text, see
    every token and are seen by every token: the scan hides pairs of image tokens alone. causal: samples for which the
    scan applies; the others see every token (the timestep threshold of the paper's v3); None applies it to all.
    logit_scale: attention scaling at sampling (see `attention_scale`). bias: added to the logits of each head. The
    softmax is float32 whatever the inputs are.

    backend: "reference" is a float32 einsum at highest precision, the oracle of the others; "xla" computes
    products in the inputs' dtype and stores the T x T logits; "cudnn" and "splash" are fused kernels for NVIDIA GPUs
    and TPUs, which do not; "auto" is `choose_backend`. Raises ConfigError for a backend that cannot run here, naming
    one that can. "Here" is the platform of the mesh in context (`jax.set_mesh`), else jax's default one.

    precision: of float32 products, "high" or "highest"; None is JAX's default. The fused kernels take none.
    """
    platform, K, has_bias = current_platform(), q.shape[-1], bias is not None
    if backend == "auto":
        backend = choose_backend(platform, q.shape[1], q.dtype, K, has_bias, precision)
    check_backend(backend, platform, q.dtype, K, has_bias, precision)
    kwargs = dict(grid=grid, scan=scan, causal=causal, num_prefix=num_prefix, scale=logit_scale / math.sqrt(K))
    if backend in _DENSE:
        return _DENSE[backend](q, k, v, bias=bias, precision=precision, **kwargs)
    return _FUSED[backend](q, k, v, **kwargs)


def check_backend(
    backend: str,
    platform: str,
    dtype: np.dtype,
    head_dim: int,
    has_bias: bool = False,
    precision: str | None = None,
) -> None:
    """Raises ConfigError, naming one that can, for a backend that cannot run on the platform (cpu, gpu or tpu)."""
    if backend not in ("auto", *_DENSE, *_FUSED):
        raise ConfigError(f"attention backend {backend!r} is unknown: {nearest(backend, ('auto', *_DENSE, *_FUSED))}")
    if backend in _FUSED and (reason := _OBSTACLES[backend](platform, dtype, head_dim)):
        raise ConfigError(reason)
    if backend in _FUSED and has_bias:
        raise ConfigError(f"attention backend {backend} takes no bias on the logits, and this model has one: use xla")
    if backend in _FUSED and precision:
        raise ConfigError(f"attention backend {backend} takes no model.matmul_precision={precision}: use xla")


def choose_backend(
    platform: str,
    num_tokens: int,
    dtype: np.dtype,
    head_dim: int,
    has_bias: bool = False,
    precision: str | None = None,
) -> str:
    """What "auto" is: the platform's fused kernel where it takes the inputs, splash from 256 tokens up; else xla."""
    if has_bias or precision:
        return "xla"
    if platform == "gpu" and not cudnn_attention.obstacle(platform, dtype, head_dim):
        return "cudnn"
    if num_tokens >= _SPLASH_FROM_TOKENS and not splash_attention.obstacle(platform, dtype, head_dim):
        return "splash"
    return "xla"


def stores_logits(backend: str) -> bool:
    """Whether the T x T logits lie in memory with this backend, which is not "auto"."""
    return backend in _DENSE


def attention_scale(num_tokens: int, trained_tokens: int) -> float:
    """sqrt(log N / log T), the logit multiplier for sampling N tokens after training on T; 1 where N <= T.

    LEDiT v3, appendix M, after Jin et al., arXiv 2306.08645: keeps the softmax's entropy as N grows.
    """
    if num_tokens <= trained_tokens or trained_tokens < 2:
        return 1.0
    return float(np.sqrt(np.log(num_tokens) / np.log(trained_tokens)))
