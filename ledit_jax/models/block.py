"""The block of a diffusion transformer, and the MLP in it. MMDiT's joint block is made of two of them.

B batch, T tokens, D width, F MLP width.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ledit_jax.config import ModelConfig
from ledit_jax.models.attention import Attention, AttentionContext
from ledit_jax.models.fit import LowRankModulation, SwiGLU
from ledit_jax.models.linear import Linear
from ledit_jax.models.norm import layer_norm, modulate

_xavier = nnx.initializers.xavier_uniform()
_zeros = nnx.initializers.zeros_init()


class MLP(nnx.Module):
    """Linear, GELU (tanh form), Linear."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, F = config.width, int(config.width * config.mlp_ratio)
        self.fc1 = Linear(config, D, F, kernel_init=_xavier, rngs=rngs)
        self.fc2 = Linear(config, F, D, kernel_init=_xavier, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=True))


class Block(nnx.Module):
    """A DiT block with adaLN-Zero. Self-attention (SA) and causal attention (CA) differ in the scan alone."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.eps, self.dtype = config.norm_eps, jnp.dtype(config.dtype)
        self.attn = Attention(config, rngs)
        if config.block == "fit":
            self.mlp, self.adaln = SwiGLU(config, rngs), LowRankModulation(config, rngs)
        else:
            self.mlp = MLP(config, rngs)
            self.adaln = Linear(config, config.width, 6 * config.width, kernel_init=_zeros, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        condition: Float[Array, "B D"],
        context: AttentionContext,
        scan: str,
        bias_scale: Float[Array, ""] | None = None,
        shared: Float[Array, "B 6*D"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """(output, what attention mixed). `condition` has been through SiLU; `shared` is added to adaLN (FiTv2)."""
        h, rest = self.enter(x, condition, shared)
        attended, mixed = self.attn(h, context, scan, bias_scale)
        return self.leave(x, attended, rest), mixed

    def enter(
        self, x: Float[Array, "B T D"], condition: Float[Array, "B D"], shared: Float[Array, "B 6*D"] | None = None
    ) -> tuple[Float[Array, "B T D"], list[Float[Array, "B D"]]]:
        """(what attention gets, the rest of the modulation: for `leave`)."""
        shift, scale, *rest = self.modulation(condition, shared)
        return modulate(layer_norm(x, self.eps), shift, scale).astype(self.dtype), rest

    def leave(
        self, x: Float[Array, "B T D"], attended: Float[Array, "B T D"], rest: list[Float[Array, "B D"]]
    ) -> Float[Array, "B T D"]:
        """The block's output, from its input and from what attention made of it."""
        gate1, shift, scale, gate2 = rest
        x = x + gate1[:, None] * attended
        h = modulate(layer_norm(x, self.eps), shift, scale).astype(self.dtype)
        return x + gate2[:, None] * self.mlp(h)

    def modulation(
        self, condition: Float[Array, "B D"], shared: Float[Array, "B 6*D"] | None
    ) -> list[Float[Array, "B D"]]:
        """Shift, scale and gate of attention, then of the MLP."""
        modulation = self.adaln(condition)
        return jnp.split(modulation if shared is None else modulation + shared, 6, axis=-1)
