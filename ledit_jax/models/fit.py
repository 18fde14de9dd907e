"""What FiTv2's block has in place of DiT's (arXiv 2410.13925; whlzy/FiT, modules.py): SwiGLU and low-rank adaLN.

Its third difference, normalised queries and keys, is in attention.py.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from ledit_jax.config import ModelConfig
from ledit_jax.models.linear import Linear

_xavier = nnx.initializers.xavier_uniform()
_zeros = nnx.initializers.zeros_init()


class SwiGLU(nnx.Module):
    """fc2(silu(gate(x)) * fc1(x)), two thirds as wide as the MLP it replaces, so that parameters stay as many."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, F = config.width, int(config.width * config.mlp_ratio) * 2 // 3
        self.gate = Linear(config, D, F, kernel_init=_xavier, rngs=rngs)
        self.fc1 = Linear(config, D, F, kernel_init=_xavier, rngs=rngs)
        self.fc2 = Linear(config, F, D, kernel_init=_xavier, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.fc2(jax.nn.silu(self.gate(x)) * self.fc1(x))


class LowRankModulation(nnx.Module):
    """A block's own share of adaLN, of rank D / 4; all blocks add the model's one full adaLN to theirs."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D = config.width
        self.down = Linear(config, D, D // 4, kernel_init=_xavier, rngs=rngs)
        self.up = Linear(config, D // 4, 6 * D, kernel_init=_zeros, rngs=rngs)

    def __call__(self, condition: Float[Array, "B D"]) -> Float[Array, "B 6*D"]:
        return self.up(self.down(condition))
