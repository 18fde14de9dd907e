"""Every setting of an experiment: typed sections, size presets, and the checks between fields.

The dataclasses are the schema. `configs/*.py` turn them into an `ml_collections.ConfigDict` that flags can
override, `Config.from_dict` turns that back, and checkpoints carry the same thing as JSON.
"""

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

import ml_collections

BlockOrder = Literal["sa_ca", "ca_sa", "sa_then_ca", "ca_then_sa", "sa", "ca", "single_ca"]
ScanVariant = Literal["a", "b", "c", "d", "d_inclusive", "none"]


class ConfigError(ValueError):
    """A setting that cannot work. The message names the field, the value and the mend, on one line."""


@dataclass(frozen=True)
class ModelConfig:
    """A diffusion transformer: LEDiT by default, DiT and NoPE as other settings (see `model_preset`)."""

    depth: int = 12
    width: int = 384
    num_heads: int = 6
    patch_size: int = 2
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    """Labels are 0 .. num_classes - 1; the null label of guidance is num_classes."""
    position: Literal["none", "sincos"] = "none"
    block_order: BlockOrder = "sa_ca"
    """SA is full self-attention, CA causal attention over `scan`; LEDiT alternates them, SA first."""
    scan: ScanVariant = "d"
    conv: Literal["none", "dense", "depthwise"] = "dense"
    """The 3x3 convolution after patchify."""
    conv_init: Literal["identity", "xavier"] = "identity"
    post_norm: bool = False
    """LayerNorm after the convolution (a refinement of the paper's v3)."""
    causal_from_timestep: int = 0
    """T' of the paper's v3: causal attention for t >= T', plain self-attention below. 0 is always causal."""
    norm_eps: float = 1e-6
    timestep_max_period: float = 10_000.0
    timestep_frequency_shift: float = 0.0
    """Frequencies are max_period ** (-i / (128 - shift)): 0 is DiT's own, 1 is diffusers' port of it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What matrix products compute in; parameters, norms, softmax and timesteps stay float32."""
    scan_layers: bool = True
    """Compile one repeating unit and scan over it; unrolled (false) compiles longer and runs faster on CPU."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes: nothing, all but matrix products, or every block."""
    attention: Literal["auto", "reference", "xla"] = "auto"
    """Attention backend, see `ledit_jax.ops.attention`."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The noise schedule (DiT's by default)."""

    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02


@dataclass(frozen=True)
class DataConfig:
    """Where pictures come from, and their size in pixels."""

    source: Literal["digits", "shapes", "image_folder", "tfds", "latents"] = "digits"
    path: str = ""
    """Folder of `image_folder` and `latents`; data_dir of `tfds` (empty: TFDS's own default)."""
    name: str = ""
    """Data set name of `tfds`, for example imagenet2012."""
    split: str = "train"
    image_height: int = 256
    image_width: int = 256
    image_channels: int = 3
    flip: bool = True
    """Mirror half of the pictures, drawn afresh every epoch."""
    num_workers: int = 0
    """Grain worker processes; 0 reads in the training process."""
    max_bad_share: float = 0.01
    """Share of unreadable pictures above which the run stops."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """The space diffusion runs in: pixels, or latents of the Stable Diffusion autoencoder."""

    kind: Literal["none", "sd"] = "none"
    checkpoint: str = ""
    """A VAE checkpoint of ours (see docs/porting.md); needed for decoding samples, not for training on latents."""
    downsample: int = 8
    latent_channels: int = 4
    scale: float = 0.18215


@dataclass(frozen=True)
class TrainConfig:
    """The training run. Defaults are the paper's."""

    num_steps: int = 400_000
    batch_size: int = 256
    """Pictures per optimiser step, over all devices."""
    accumulation_steps: int = 1
    """Split each batch in this many micro-batches."""
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup_steps: int = 0
    decay_steps: int = 0
    """Length of a final linear decay of the rate to zero; 0 keeps it constant (the paper)."""
    grad_clip: float = 0.0
    """Largest global gradient norm; 0 does not clip."""
    max_nonfinite_steps: int = 0
    """Steps whose loss or gradient is not finite are never applied; more of them than this stop the run."""
    ema_decay: float = 0.9999
    label_dropout: float = 0.1
    dilation_probability: float = 0.1
    """Share of steps on which the convolution is dilated by one of `dilation_rates` (multi-dilation training)."""
    dilation_rates: tuple[int, ...] = (2,)
    seed: int = 0
    log_every: int = 100
    checkpoint_every: int = 5_000
    keep_last: int = 3
    keep_every: int = 100_000
    """Checkpoints at multiples of this are kept for good; 0 keeps only the last ones."""
    sample_every: int = 10_000
    """Steps between sample grids; 0 draws none."""


@dataclass(frozen=True)
class MeshConfig:
    """Device mesh. One size may be -1: what is left of the devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class SampleConfig:
    """How samples are drawn unless sample.py is told otherwise."""

    sampler: Literal["ddpm", "ddim", "dpmpp"] = "ddpm"
    num_steps: int = 250
    cfg_scale: float = 1.5
    cfg_channels: Literal["3", "all"] = "3"
    """Guide the first three channels (DiT's published numbers) or all of them."""
    cfg_interval: tuple[float, float] = (0.0, 1.0)
    """Guide only while t / num_timesteps lies in this closed interval."""
    attention_scaling: bool = True
    """Multiply logits by sqrt(log N / log T) when sampling more tokens N than the T trained on."""


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    @property
    def in_channels(self) -> int:
        """Channels of what the network denoises."""
        return self.data.image_channels if self.autoencoder.kind == "none" else self.autoencoder.latent_channels

    @property
    def downsample(self) -> int:
        """Pixels per side of one latent cell; 1 for pixel models."""
        return 1 if self.autoencoder.kind == "none" else self.autoencoder.downsample

    @property
    def granularity(self) -> int:
        """Heights and widths in pixels are multiples of this: patch size times the autoencoder's downsampling."""
        return self.model.patch_size * self.downsample

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """(H, W, C) that the network sees for a picture of this size in pixels (default: the training size)."""
        height = self.data.image_height if height is None else height
        width = self.data.image_width if width is None else width
        check_picture_size(height, width, self.granularity)
        return height // self.downsample, width // self.downsample, self.in_channels

    def num_tokens(self, height: int | None = None, width: int | None = None) -> int:
        """Tokens of a picture of this size in pixels (default: the training size)."""
        h, w, _ = self.latent_shape(height, width)
        return (h // self.model.patch_size) * (w // self.model.patch_size)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Builds and validates a Config from nested mappings, such as a checkpoint's JSON.

        Missing fields take their defaults. Raises ConfigError for an unknown key, a wrong type or values that
        do not fit together.
        """
        config = _from_mapping(cls, values, prefix="")
        validate(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, ready for JSON."""
        return dataclasses.asdict(self)

    def to_config_dict(self) -> ml_collections.ConfigDict:
        """The same as an ml_collections.ConfigDict, for flags to override; returned by `configs/*.py`."""
        return ml_collections.ConfigDict(self.to_dict())


# Depth, width and heads of the DiT paper (arXiv 2212.09748, table 1).
_SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
_FAMILIES: dict[str, dict[str, Any]] = {
    "LEDiT": {},
    "DiT": {"position": "sincos", "block_order": "sa", "conv": "none"},
    "NoPE": {"position": "none", "block_order": "sa", "conv": "none"},
}


def model_preset(name: str, **overrides: Any) -> ModelConfig:
    """ModelConfig for a name such as "LEDiT-XL/2", "DiT-B/4" or "NoPE-S/8".

    Raises ConfigError for any other name. `overrides` are ModelConfig fields.
    """
    match = re.fullmatch(r"(\w+)-(\w+)/([248])", name)
    if not match or match[1] not in _FAMILIES or match[2] not in _SIZES:
        raise ConfigError(
            f"model name {name!r} is unknown: use FAMILY-SIZE/PATCH with family {', '.join(_FAMILIES)}, "
            f"size {', '.join(_SIZES)} and patch 2, 4 or 8, for example LEDiT-XL/2"
        )
    depth, width, num_heads = _SIZES[match[2]]
    sizes = dict(depth=depth, width=width, num_heads=num_heads, patch_size=int(match[3]))
    return ModelConfig(**(sizes | _FAMILIES[match[1]] | overrides))


def attention_kinds(order: BlockOrder, depth: int) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Segments (repeating unit, repeats) of a block order: ((("sa", "ca"), 14),) for "sa_ca" and depth 28.

    "single_ca" makes the first block causal: the paper's v3 says one causal layer and not which, and the first
    is where position has to enter.
    """
    half = depth // 2
    return {
        "sa_ca": ((("sa", "ca"), half),),
        "ca_sa": ((("ca", "sa"), half),),
        "sa_then_ca": ((("sa",), half), (("ca",), half)),
        "ca_then_sa": ((("ca",), half), (("sa",), half)),
        "sa": ((("sa",), depth),),
        "ca": ((("ca",), depth),),
        "single_ca": ((("ca",), 1), (("sa",), depth - 1)),
    }[order]


def check_picture_size(height: int, width: int, granularity: int) -> None:
    """Raises ConfigError unless both sides are positive multiples of `granularity` (pixels)."""
    for name, value in (("height", height), ("width", width)):
        if value <= 0 or value % granularity:
            below = max(granularity, value // granularity * granularity)
            raise ConfigError(
                f"{name}={value} is not a positive multiple of {granularity} (patch size x downsampling): "
                f"use {below} or {below + granularity}"
            )


def validate(config: Config) -> None:
    """Raises ConfigError for the first setting that cannot work. Nothing here needs a device or a file."""
    model, data, train, sample = config.model, config.data, config.train, config.sample
    _positive(config, "model", "depth", "width", "num_heads", "patch_size", "num_classes", "mlp_ratio")
    _positive(config, "data", "image_height", "image_width", "image_channels")
    _positive(config, "train", "num_steps", "batch_size", "accumulation_steps", "learning_rate")
    _positive(config, "train", "log_every", "checkpoint_every", "keep_last")
    _positive(config, "sample", "num_steps")
    if model.width % model.num_heads:
        raise ConfigError(
            f"model.num_heads={model.num_heads} does not divide model.width={model.width}: "
            f"use one of {_divisors(model.width)}"
        )
    if model.position == "sincos" and model.width % 4:
        raise ConfigError(f"model.width={model.width} is not a multiple of 4, which sin/cos positions need")
    if model.depth % 2 and model.block_order not in ("sa", "ca", "single_ca"):
        raise ConfigError(
            f"model.depth={model.depth} is odd, and model.block_order={model.block_order} needs pairs of blocks: "
            f"use depth {model.depth - 1 or 2} or {model.depth + 1}, or block_order sa, ca or single_ca"
        )
    check_picture_size(data.image_height, data.image_width, config.granularity)
    if train.batch_size % train.accumulation_steps:
        raise ConfigError(
            f"train.accumulation_steps={train.accumulation_steps} does not divide train.batch_size={train.batch_size}"
        )
    for name in ("ema_decay", "label_dropout", "dilation_probability"):
        if not 0 <= getattr(train, name) <= 1:
            raise ConfigError(f"train.{name}={getattr(train, name)} is not between 0 and 1")
    if train.dilation_probability and model.conv == "none":
        raise ConfigError(
            f"train.dilation_probability={train.dilation_probability} has no convolution to dilate "
            "(model.conv=none): set it to 0, or model.conv to dense"
        )
    if train.dilation_probability and not (train.dilation_rates and min(train.dilation_rates) > 0):
        raise ConfigError(f"train.dilation_rates={train.dilation_rates} must be one or more positive integers")
    if sample.num_steps > config.diffusion.num_timesteps:
        raise ConfigError(
            f"sample.num_steps={sample.num_steps} is more than diffusion.num_timesteps="
            f"{config.diffusion.num_timesteps}: use at most {config.diffusion.num_timesteps}"
        )
    if not 0 <= model.causal_from_timestep <= config.diffusion.num_timesteps:
        raise ConfigError(
            f"model.causal_from_timestep={model.causal_from_timestep} is not between 0 and "
            f"diffusion.num_timesteps={config.diffusion.num_timesteps}"
        )


def _positive(config: Config, section: str, *names: str) -> None:
    for name in names:
        value = getattr(getattr(config, section), name)
        if value <= 0:
            raise ConfigError(f"{section}.{name}={value} must be greater than 0")


def _divisors(n: int) -> str:
    return ", ".join(str(d) for d in range(1, n + 1) if n % d == 0 and n // d >= 8) or "1"


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest to a mistyped one, as the tail of an error message."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def _from_mapping(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(f"config key {prefix}{key} is unknown: {nearest(key, hints)}")
    return cls(**{key: _convert(hints[key], value, prefix + key) for key, value in values.items()})


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Checks `value` against a field's type; ints pass for floats and lists for tuples, as JSON needs."""
    if dataclasses.is_dataclass(hint):
        return _from_mapping(hint, value, prefix=f"{name}.")
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"{name}={value!r} is unknown: {nearest(str(value), map(str, get_args(hint)))}")
        return value
    if get_origin(hint) is tuple:
        args = get_args(hint)
        items = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if args[-1] is not Ellipsis and len(items) != len(args):
            raise ConfigError(f"{name}={value!r} needs {len(args)} values")
        return tuple(_convert(args[0], item, name) for item in items)
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name}={value!r} is a {type(value).__name__}, and a {hint.__name__} is needed")
    return float(value) if hint is float else value
