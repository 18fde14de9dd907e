"""Where a token's position comes from: one small class a method. LEDiT's is `NoPosition`, the others are baselines'.

A method may add something to the tokens, act inside attention (rotary tables, a bias on the logits), and have settings
of its own at sampling. It is a frozen dataclass of plain settings, so that equal ones share compiled programs.

h w token grid, T tokens, N heads, K head dim, D width, L depth.
"""

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ledit_jax.config import ModelConfig
from ledit_jax.errors import ConfigError
from ledit_jax.models.lookhere import layer_slopes, lookhere_bias
from ledit_jax.models.rotary import rotary_tables
from ledit_jax.models.tables import resize_table, sincos_table

Grid = tuple[int, int]
"""(rows, columns) of tokens."""

TABLE = "position_table"
"""The name of a learned table among the model's parameters."""


@dataclass(frozen=True)
class NoPosition:
    """No positions at all, and the base of the methods that have some."""

    lost_when_dropped = ""
    """What another method loses that starts from these weights and that is no parameter; empty if nothing is."""
    has_bias = False
    """Whether `bias` is not None: not every attention backend takes one."""

    @property
    def sharpens(self) -> bool:
        """Whether the method itself multiplies logits beyond the trained grid: attention scaling would do so twice."""
        return False

    @classmethod
    def from_config(cls, config: ModelConfig, trained_grid: Grid) -> "NoPosition":
        """The method as a model has it. Raises ConfigError for sizes that it cannot work with."""
        return cls()

    def for_sampling(self, rope_method: str) -> "NoPosition":
        """The method with its settings at sampling. Raises ConfigError for one that it does not have."""
        if rope_method != "plain":
            raise ConfigError(
                f"sample.rope_method={rope_method} needs rotary positions, which this model lacks: use plain"
            )
        return self

    def init_table(self, width: int, rngs: nnx.Rngs) -> nnx.Param | None:
        """A learned table [h, w, D] over the trained grid, if the method has one."""
        return None

    def fixed_table(self, grid: Grid, width: int) -> Float[np.ndarray, "h w D"] | None:
        """The table that is added to every token and never trained, if the method has one."""
        return None

    def add(self, x: Float[Array, "B h w D"], table: nnx.Param | None) -> Float[Array, "B h w D"]:
        """The tokens with what is added to them."""
        return x

    def rotary(self, grid: Grid) -> tuple[np.ndarray, np.ndarray] | None:
        """(cos, sin) [T, K] that turn queries and keys."""
        return None

    def bias(self, grid: Grid) -> np.ndarray | None:
        """[N, T, T], added to the logits once multiplied by the layer's own `bias_scales`."""
        return None

    def bias_scales(self, depth: int) -> Float[np.ndarray, " L"] | None:
        """A factor of the bias for each layer."""
        return None


@dataclass(frozen=True)
class SinCos(NoPosition):
    """DiT's fixed table, added to the tokens; beyond the trained grid it goes on counting."""

    lost_when_dropped = "the sin/cos positional table"

    @classmethod
    def from_config(cls, config: ModelConfig, trained_grid: Grid) -> "SinCos":
        if config.width % 4:
            raise ConfigError(f"model.width={config.width} is not a multiple of 4, which sin/cos positions need")
        return cls()

    def fixed_table(self, grid: Grid, width: int) -> Float[np.ndarray, "h w D"]:
        return sincos_table(*grid, width)

    def add(self, x: Float[Array, "B h w D"], table: nnx.Param | None) -> Float[Array, "B h w D"]:
        return x + self.fixed_table(x.shape[1:3], x.shape[3]).astype(x.dtype)


@dataclass(frozen=True)
class Learnable(NoPosition):
    """A learned table, added to the tokens; beyond the trained grid it is stretched (bicubic)."""

    trained_grid: Grid

    @classmethod
    def from_config(cls, config: ModelConfig, trained_grid: Grid) -> "Learnable":
        return cls(trained_grid)

    def init_table(self, width: int, rngs: nnx.Rngs) -> nnx.Param:
        init = nnx.initializers.normal(0.02)
        return nnx.Param(init(rngs.params(), (*self.trained_grid, width), jnp.float32))

    def add(self, x: Float[Array, "B h w D"], table: nnx.Param | None) -> Float[Array, "B h w D"]:
        return x + resize_table(table[...], x.shape[1:3]).astype(x.dtype)


@dataclass(frozen=True)
class Rotary(NoPosition):
    """Rotary positions on two axes; `method` is what is done to the frequencies beyond the trained grid."""

    trained_grid: Grid
    head_dim: int
    method: str = "plain"

    @classmethod
    def from_config(cls, config: ModelConfig, trained_grid: Grid) -> "Rotary":
        head_dim = config.width // config.num_heads
        if head_dim % 4:
            raise ConfigError(
                f"model.width={config.width} / model.num_heads={config.num_heads} is not a multiple of 4, which rotary "
                "positions on two axes need"
            )
        return cls(trained_grid, head_dim)

    @property
    def sharpens(self) -> bool:
        return self.method == "yarn"  # its cos and sin have a magnitude

    def for_sampling(self, rope_method: str) -> "Rotary":
        return dataclasses.replace(self, method=rope_method)

    def rotary(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        return rotary_tables(grid, self.trained_grid, self.head_dim, self.method)


@dataclass(frozen=True)
class LookHere(NoPosition):
    """Heads that look one way each, and logits that fall with distance."""

    num_heads: int
    has_bias = True

    @classmethod
    def from_config(cls, config: ModelConfig, trained_grid: Grid) -> "LookHere":
        if config.num_heads < 4:
            raise ConfigError(
                f"model.num_heads={config.num_heads} is too few for model.position=lookhere: use 4 or more"
            )
        return cls(config.num_heads)

    def bias(self, grid: Grid) -> np.ndarray:
        return lookhere_bias(*grid, self.num_heads)

    def bias_scales(self, depth: int) -> Float[np.ndarray, " L"]:
        return layer_slopes(depth)


_METHODS = {"none": NoPosition, "sincos": SinCos, "learnable": Learnable, "rope": Rotary, "lookhere": LookHere}


def make_position(config: ModelConfig, trained_grid: Grid) -> NoPosition:
    """The method that `model.position` names, for a model trained on a grid."""
    return _METHODS[config.position].from_config(config, trained_grid)
