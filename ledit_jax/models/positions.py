"""Where a token's position comes from: one small class a method. LEDiT's is `NoPosition`, the others are baselines'.

A method may add something to the tokens, act inside attention (rotary tables, a bias on the logits), have settings of
its own at sampling, and draw at random in training. It is a frozen dataclass of plain settings, so that equal ones
share compiled programs.

B batch, h w token grid, T tokens, N heads, K head dim, D width, L depth.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Num

from ledit_jax.config import ModelConfig
from ledit_jax.errors import ConfigError
from ledit_jax.models.dynamic_rotary import dynamic_tables, noise_share, ordered_tables, spaced_tables
from ledit_jax.models.lookhere import layer_slopes, lookhere_bias
from ledit_jax.models.rotary import rotary_tables
from ledit_jax.models.tables import resize_table, sincos_table

Grid = tuple[int, int]
"""(rows, columns) of tokens."""

TimeSpan = tuple[float, float]
"""The times of clean data and of pure noise, as a network is fed them."""

Tables = tuple[np.ndarray, np.ndarray] | tuple[jax.Array, jax.Array]
"""(cos, sin) of rotary positions: [T, K], or [B, T, K] where samples differ."""

TABLE = "position_table"
"""The name of a learned table among the model's parameters."""
_DYNAMIC = "dype_"
_ORDERED_RANGE = 2


@dataclass(frozen=True)
class NoPosition:
    """No positions at all, and the base of the methods that have some."""

    lost_when_dropped = ""
    """What another method loses that starts from these weights and that is no parameter; empty if nothing is."""
    has_bias = False
    """Whether `bias` is not None: not every attention backend takes one."""
    is_random = False
    """Whether positions are drawn in training, from a key that `rotary` then gets."""

    @property
    def sharpens(self) -> bool:
        """Whether the method itself multiplies logits beyond the trained grid: attention scaling would do so twice."""
        return False

    @classmethod
    def from_config(cls, config: ModelConfig, trained_grid: Grid) -> "NoPosition":
        """The method as a model has it. Raises ConfigError for sizes that it cannot work with."""
        return cls()

    def for_sampling(self, rope_method: str, time_span: TimeSpan) -> "NoPosition":
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

    def rotary(self, grid: Grid, times: Num[Array, " B"], key: jax.Array | None = None) -> Tables | None:
        """(cos, sin) that turn queries and keys. times: as fed. key: of training, for what is drawn there alone."""
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

    def for_sampling(self, rope_method: str, time_span: TimeSpan) -> "Rotary":
        if rope_method.startswith(_DYNAMIC):
            method = rope_method.removeprefix(_DYNAMIC)
            return DynamicRotary(self.trained_grid, self.head_dim, method, time_span)
        return Rotary(self.trained_grid, self.head_dim, rope_method)

    def rotary(self, grid: Grid, times: Num[Array, " B"], key: jax.Array | None = None) -> Tables:
        return rotary_tables(grid, self.trained_grid, self.head_dim, self.method)


@dataclass(frozen=True)
class DynamicRotary(Rotary):
    """What DyPE does to NTK or YaRN beyond the trained grid: the noisier the sample, the more of it. At sampling alone,
    with the weights of `Rotary`. The paper's time is a flow's; a diffusion's is taken as the share of its steps."""

    time_span: TimeSpan = (0.0, 1.0)

    def rotary(self, grid: Grid, times: Num[Array, " B"], key: jax.Array | None = None) -> Tables:
        share = noise_share(times, *self.time_span)
        return dynamic_tables(grid, self.trained_grid, self.head_dim, self.method, share)


@dataclass(frozen=True)
class OrderedRotary(Rotary):
    """RPE-2D (arXiv 2503.18719): rotary positions of which training fixes the order alone, not the distance.

    In training each sample's rows are different positions out of a range, drawn at random and put in order, and so are
    its columns: positions of a larger grid have then been seen. Our readings: the range is twice the trained grid's,
    the largest size that the paper draws, each sample has a draw of its own, and at sampling positions are spread
    evenly over the range. The paper's random crops, what tells the network of them, and its time shift are no part.
    """

    is_random = True

    @property
    def _ranges(self) -> Grid:
        rows, columns = self.trained_grid
        return _ORDERED_RANGE * rows, _ORDERED_RANGE * columns

    def for_sampling(self, rope_method: str, time_span: TimeSpan) -> "OrderedRotary":
        if rope_method != "plain":
            raise ConfigError(f"sample.rope_method={rope_method} does not go with model.position=rpe2d: use plain")
        return self

    def rotary(self, grid: Grid, times: Num[Array, " B"], key: jax.Array | None = None) -> Tables:
        if key is None:
            return spaced_tables(grid, self._ranges, self.head_dim)
        return ordered_tables(key, len(times), grid, self._ranges, self.head_dim)


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


_METHODS = {
    "none": NoPosition,
    "sincos": SinCos,
    "learnable": Learnable,
    "rope": Rotary,
    "rpe2d": OrderedRotary,
    "lookhere": LookHere,
}


def make_position(config: ModelConfig, trained_grid: Grid) -> NoPosition:
    """The method that `model.position` names, for a model trained on a grid."""
    return _METHODS[config.position].from_config(config, trained_grid)
