"""The transformer that both towers of CLIP are made of (Radford et al., arXiv 2103.00020), as transformers computes it.

B batch, T tokens, D width, N heads, K head dim. Everything is float32: these networks say what is drawn and how good it
is, and run once for each prompt or image.
"""

from dataclasses import dataclass
from typing import Literal

import jax
from flax import nnx
from jaxtyping import Array, Float

from ledit_jax.errors import ConfigError
from ledit_jax.models.module_list import ModuleList


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of a tower; the defaults are those of ViT-L/14's text."""

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    activation: Literal["quick_gelu", "gelu", "gelu_tanh"] = "quick_gelu"
    """quick_gelu, x sigmoid(1.702 x), is OpenAI's; OpenCLIP's later models have the exact one."""
    norm_eps: float = 1e-5

    def __post_init__(self):
        if min(self.width, self.depth, self.num_heads, self.mlp_width) < 1 or self.width % self.num_heads:
            raise ConfigError(
                f"num_heads={self.num_heads} must divide width={self.width}, and all sizes must be positive"
            )


_ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


def make_norm(config: TowerConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Two passes: E[x^2] - E[x]^2 cancels where a mean is large against its spread, as CLIP's are."""
    return nnx.LayerNorm(config.width, epsilon=config.norm_eps, use_fast_variance=False, rngs=rngs)


class Layer(nnx.Module):
    """Norm, attention, norm, MLP, each pair added to its input."""

    def __init__(self, config: TowerConfig, rngs: nnx.Rngs):
        D = config.width
        self.num_heads, self.activation = config.num_heads, config.activation
        self.norm1 = make_norm(config, rngs)
        self.qkv = nnx.Linear(D, 3 * D, rngs=rngs)
        self.proj = nnx.Linear(D, D, rngs=rngs)
        self.norm2 = make_norm(config, rngs)
        self.fc1 = nnx.Linear(D, config.mlp_width, rngs=rngs)
        self.fc2 = nnx.Linear(config.mlp_width, D, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"], is_causal: bool) -> Float[Array, "B T D"]:
        B, T, D = x.shape
        x = x.reshape(B * T, D)  # products of two axes are what every backend does best
        qkv = self.qkv(self.norm1(x)).reshape(B, T, 3, self.num_heads, -1)
        mixed = jax.nn.dot_product_attention(*(qkv[:, :, i] for i in range(3)), is_causal=is_causal)  # B T N K
        x = x + self.proj(mixed.reshape(B * T, D))
        x = x + self.fc2(_ACTIVATIONS[self.activation](self.fc1(self.norm2(x))))
        return x.reshape(B, T, D)


class Tower(nnx.Module):
    """The layers, one after another. `is_causal`: a token sees itself and those before it."""

    def __init__(self, config: TowerConfig, is_causal: bool, rngs: nnx.Rngs):
        self.is_causal = is_causal
        self.layers = ModuleList([Layer(config, rngs) for _ in range(config.depth)])

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        for layer in self.layers:
            x = layer(x, self.is_causal)
        return x
