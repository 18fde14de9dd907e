"""LEDiT, MMDiT and their baselines as a `Network`: what of an experiment a network depends on, and nothing else."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from ledit_jax.config import Config, ModelConfig, SampleConfig
from ledit_jax.models.condition import EMPTY_CAPTION, ClassLabels, TextStates
from ledit_jax.models.functional import Network, Params, round_for_products
from ledit_jax.models.ledit import LEDiT
from ledit_jax.models.mmdit import MMDiT
from ledit_jax.models.positions import Grid, NoPosition, TimeSpan, make_position
from ledit_jax.models.words import Words
from ledit_jax.ops.attention import check_backend, choose_backend, stores_logits


@runtime_checkable
class HasOutputs(Protocol):
    """Of a process (`ledit_jax.diffusion.Process`), what a network has to know: its outputs, and its times."""

    end_time: float

    def out_channels(self, channels: int) -> int: ...

    def fed_times(self, times): ...


@dataclass(frozen=True)
class TransformerNetwork(Network):
    """The settings that `LEDiT` and `MMDiT` have in common."""

    config: ModelConfig
    in_channels: int
    out_channels: int
    trained_grid: Grid
    position: NoPosition
    causal_times: tuple[float, float] | None = None
    """Between which times, as fed, causal attention is causal; None: always."""
    time_span: TimeSpan = (0.0, 1.0)
    """The times of clean data and of pure noise, as fed."""
    attention_scaling: bool = False
    """Scale the logits beyond the trained number of tokens (`ops.attention.attention_scale`): at sampling alone."""
    in_place: bool = False
    """Read each layer's weights where they lie (`models.stack.run_stack`): at sampling, which takes no gradients."""

    @property
    def trained_tokens(self) -> int | None:
        """Of an image, beyond which attention is scaled."""
        return math.prod(self.trained_grid) if self.attention_scaling else None

    @property
    def _settled(self) -> tuple[tuple[float, float] | None, int | None, bool]:
        """The last arguments of the modules."""
        return self.causal_times, self.trained_tokens, self.in_place

    @property
    def is_random(self) -> bool:
        return self.position.is_random

    def for_sampling(self, options: SampleConfig) -> "TransformerNetwork":
        position = self.position.for_sampling(options.rope_method, self.time_span)
        scaling = {"on": True, "off": False, "auto": not position.sharpens}[options.attention_scaling]
        return dataclasses.replace(self, position=position, attention_scaling=scaling, in_place=True)

    def rounded(self, params: Params) -> Params:
        return round_for_products(params, self.config.dtype)

    def attended(self, num_tokens: int) -> int:
        """Tokens that attend to each other, of an image of so many."""
        return num_tokens

    def attention_backend(self, num_tokens: int, platform: str) -> str:
        """What attention runs in, for an image of so many tokens."""
        if self.config.attention != "auto":
            return self.config.attention
        return choose_backend(platform, self.attended(num_tokens), *self._attention_inputs)

    def least_logits(self, images: int, num_tokens: int, platform: str) -> int:
        if not stores_logits(self.attention_backend(num_tokens, platform)):
            return 0
        itemsize = jnp.dtype(self.config.dtype).itemsize
        return itemsize * images * self.config.num_heads * self.attended(num_tokens) ** 2

    def check_devices(self, mesh: Mesh) -> None:
        check_backend(self.config.attention, mesh.devices.flat[0].platform, *self._attention_inputs)

    @property
    def _attention_inputs(self) -> tuple[jnp.dtype, int, bool, str | None]:
        """What a backend has to take: dtype, head dim, whether the logits have a bias, precision."""
        config = self.config
        dtype, head_dim = jnp.dtype(config.dtype), config.width // config.num_heads
        return dtype, head_dim, self.position.has_bias, config.precision


@dataclass(frozen=True)
class LEDiTNetwork(TransformerNetwork):
    """The settings of a `LEDiT`."""

    @property
    def condition(self) -> ClassLabels:
        return ClassLabels(self.config.num_classes)

    def build(self, rngs: nnx.Rngs) -> LEDiT:
        channels = self.in_channels, self.out_channels
        return LEDiT(self.config, *channels, self.position, rngs, *self._settled)


@dataclass(frozen=True)
class MMDiTNetwork(TransformerNetwork):
    """The settings of an `MMDiT`; `text` is what it is told."""

    text: TextStates = field(kw_only=True)
    frozen = (EMPTY_CAPTION,)

    @property
    def condition(self) -> TextStates:
        return self.text

    def attended(self, num_tokens: int) -> int:
        return num_tokens + self.text.length

    def build(self, rngs: nnx.Rngs) -> MMDiT:
        shapes = self.text.shape, self.in_channels, self.out_channels
        return MMDiT(self.config, *shapes, self.position, rngs, *self._settled)


def make_network(config: Config, process: HasOutputs) -> TransformerNetwork:
    """The network of an experiment, for a process. Raises ConfigError for sizes that its positions cannot work with."""
    grid = config.token_grid()
    model = config.model
    if model.span_embed and model.attention == "auto":  # trained by a derivative that fused kernels do not have
        model = dataclasses.replace(model, attention="xla")
    settings = (
        model,
        config.in_channels,
        process.out_channels(config.in_channels),
        grid,
        make_position(config.model, grid),
        _causal_times(config.model.causal_from_timestep, process),
        _fed(process, 0.0, process.end_time),
    )
    if model.network == "mmdit":
        encode = Words(config.text.length, config.text.width) if config.text.encoder == "words" else None
        return MMDiTNetwork(*settings, text=TextStates(config.text.length, config.text.width, encode))
    return LEDiTNetwork(*settings)


def _causal_times(start: float, process: HasOutputs) -> tuple[float, float] | None:
    """From `start` to pure noise, as fed: a checkpoint's own time may run the other way."""
    if not start:
        return None
    low, high = sorted(_fed(process, start, process.end_time))
    return low, high


def _fed(process: HasOutputs, *times: float) -> tuple[float, ...]:
    with jax.ensure_compile_time_eval():  # a network may be made inside of a program
        return tuple(process.fed_times(jnp.array(times)).tolist())
