"""What settings must be, alone and beside each other. Nothing here needs a device or a file."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ledit_jax.config.bounds import check_finite, check_sizes
from ledit_jax.config.shift import resolve_shift
from ledit_jax.errors import ConfigError

if TYPE_CHECKING:
    from ledit_jax.config.experiment import Config

_SAMPLERS = {"noise": ("ddpm", "ddim", "dpmpp"), "flow": ("euler", "heun", "ab2", "dpmpp", "sde")}


def check_image_size(height: int, width: int, granularity: int, prefix: str = "") -> None:
    """Raises ConfigError unless both sides are positive multiples of `granularity` (pixels). prefix: of their names."""
    for name, value in (("height", height), ("width", width)):
        if value <= 0 or value % granularity:
            below = max(granularity, value // granularity * granularity)
            raise ConfigError(
                f"{prefix}{name}={value} is not a positive multiple of {granularity} (patch size x downsampling): "
                f"use {below} or {below + granularity}"
            )


def validate(config: "Config") -> None:
    """Raises ConfigError for the first setting that cannot work."""
    check_finite(config)
    _check_signs(config)
    check_sizes(config)
    _check_model(config)
    _check_text(config)
    check_image_size(config.data.image_height, config.data.image_width, config.granularity, "data.image_")
    _check_train(config)
    _check_objective(config)
    _check_sample(config)


def _check_signs(config: "Config") -> None:
    _positive(config, "model", "depth", "width", "num_heads", "patch_size", "num_classes", "mlp_ratio", "norm_eps")
    _positive(config, "model", "timestep_max_period")
    _positive(config, "diffusion", "num_timesteps", "beta_start", "beta_end")
    _positive(config, "autoencoder", "downsample", "latent_channels", "scale")
    for name in ("latents_mean", "latents_std"):
        values, channels = getattr(config.autoencoder, name), config.autoencoder.latent_channels
        if values and len(values) != channels:
            raise ConfigError(
                f"autoencoder.{name} has {len(values)} numbers for autoencoder.latent_channels={channels}: give one "
                "for each, or none"
            )
        if name == "latents_std" and any(value <= 0 for value in values):
            raise ConfigError(f"autoencoder.latents_std={values} must be greater than 0, each of them")
    _positive(config, "data", "image_height", "image_width", "image_channels", "min_crop_share")
    _positive(config, "text", "length", "width")
    _positive(config, "train", "num_steps", "batch_size", "accumulation_steps", "learning_rate")
    _positive(config, "train", "log_every", "checkpoint_every", "keep_last")
    _positive(config, "sample", "num_steps")
    _not_negative(config, "data", "num_workers")
    _not_negative(config, "train", "weight_decay", "warmup_steps", "decay_steps", "grad_clip", "max_nonfinite_steps")
    _not_negative(config, "train", "seed", "keep_every", "sample_every")
    _not_negative(config, "model", "timestep_frequency_shift")
    _shares(config, "data", "max_bad_share", "min_crop_share")
    _shares(config, "train", "ema_decay", "label_dropout", "dilation_probability")


def _check_model(config: "Config") -> None:
    model = config.model
    if model.width % model.num_heads:
        raise ConfigError(
            f"model.num_heads={model.num_heads} does not divide model.width={model.width}: "
            f"use one of {_divisors(model.width)}"
        )
    if model.depth % 2 and model.block_order not in ("sa", "ca", "single_ca"):
        raise ConfigError(
            f"model.depth={model.depth} is odd, and model.block_order={model.block_order} needs pairs of blocks: "
            f"use depth {model.depth - 1 or 2} or {model.depth + 1}, or block_order sa, ca or single_ca"
        )
    if model.precision and model.dtype != "float32":
        raise ConfigError(
            f"model.matmul_precision={model.matmul_precision} is about float32 products, and model.dtype="
            f"{model.dtype}: use model.dtype=float32, or matmul_precision=default"
        )
    is_flow = config.diffusion.objective == "flow"
    end, what = (
        (1, "1, the end of a flow's time")
        if is_flow
        else (
            config.diffusion.num_timesteps,
            f"diffusion.num_timesteps={config.diffusion.num_timesteps}",
        )
    )
    if not 0 <= model.causal_from_timestep <= end:
        raise ConfigError(f"model.causal_from_timestep={model.causal_from_timestep:g} is not between 0 and {what}")


def _check_text(config: "Config") -> None:
    """A network that is told text, an encoder of text, and nothing that only the other network has."""
    model, text = config.model, config.text
    if (model.network == "mmdit") != (text.encoder != "none"):
        raise ConfigError(
            f"model.network={model.network} with text.encoder={text.encoder}: an mmdit is told text, so it needs an "
            "encoder, words or clip, and a ledit is told classes and takes none"
        )
    if text.checkpoint and text.encoder != "clip":
        raise ConfigError(f"text.checkpoint={text.checkpoint!r} has no effect with text.encoder={text.encoder}")
    if model.network == "mmdit":
        if model.depth < 2:
            raise ConfigError("model.depth=1 is too little for model.network=mmdit, whose last block is special: use 2")
        for name, allowed in (("block", "dit"), ("span_embed", False)):
            if getattr(model, name) != allowed:
                raise ConfigError(
                    f"model.{name}={getattr(model, name)} is not made for model.network=mmdit: use {allowed}"
                )
        if model.position == "lookhere":
            raise ConfigError("model.position=lookhere directs image tokens alone: in an mmdit use another one")


def _check_train(config: "Config") -> None:
    train = config.train
    if train.batch_size % train.accumulation_steps:
        raise ConfigError(
            f"train.accumulation_steps={train.accumulation_steps} does not divide train.batch_size={train.batch_size}"
        )
    if train.dilation_probability and config.model.conv == "none":
        raise ConfigError(
            f"train.dilation_probability={train.dilation_probability} has no convolution to dilate "
            "(model.conv=none): set it to 0, or model.conv to dense"
        )
    if train.dilation_probability and not (train.dilation_rates and min(train.dilation_rates) > 0):
        raise ConfigError(f"train.dilation_rates={train.dilation_rates} must be one or more positive integers")


def _check_objective(config: "Config") -> None:
    """Diffusion or flow, and nothing of the other."""
    flow, model = config.flow, config.model
    if config.diffusion.objective == "noise":
        for field in dataclasses.fields(flow):
            if getattr(flow, field.name) != field.default:
                raise ConfigError(
                    f"flow.{field.name}={getattr(flow, field.name)} has no effect with diffusion.objective=noise: "
                    "set that to flow"
                )
    for field in dataclasses.fields(config.diffusion)[1:]:
        value = getattr(config.diffusion, field.name)
        if config.diffusion.objective == "flow" and value != field.default:
            raise ConfigError(
                f"diffusion.{field.name}={value} is of DiT's diffusion, and a flow has none: leave it out"
            )
    _positive(config, "flow", "times_std", "time_scale")
    _not_negative(config, "flow", "base_tokens")
    _shares(config, "flow", "mean_flow_share")
    resolve_shift(flow.time_shift, None, None, name="flow.time_shift")
    for name, default in (("times_mean", 0.0), ("times_std", 1.0)) if flow.times == "uniform" else ():
        if getattr(flow, name) != default:
            raise ConfigError(
                f"flow.{name}={getattr(flow, name)} has no effect with flow.times=uniform: use logit_normal, or "
                f"{name}={default}"
            )
    if bool(flow.mean_flow_share) != model.span_embed:
        raise ConfigError(
            f"flow.mean_flow_share={flow.mean_flow_share} with model.span_embed={model.span_embed}: average velocities "
            "need the embedding of a span, and nothing else does"
        )
    if flow.mean_flow_share and model.attention in ("cudnn", "splash"):
        raise ConfigError(
            f"model.attention={model.attention} with flow.mean_flow_share={flow.mean_flow_share}: MeanFlow needs the "
            "derivative along a direction, which fused kernels do not have: use auto or xla"
        )


def _check_sample(config: "Config") -> None:
    sample = config.sample
    objective = config.diffusion.objective
    samplers = _SAMPLERS[objective] + (("meanflow",) if config.flow.mean_flow_share else ())
    if sample.sampler not in samplers:
        what = "DiT's diffusion" if objective == "noise" else "a flow"
        raise ConfigError(f"sample.sampler={sample.sampler} does not fit {what}: use {', '.join(samplers)}")
    resolve_shift(sample.time_shift, None, None, name="sample.time_shift")
    for name, nothing in (("time_shift", "none"), ("sde_diffusion", "sigma")) if objective == "noise" else ():
        value = getattr(sample, name)
        if value != nothing:
            raise ConfigError(f"sample.{name}={value} is for flows, and this is DiT's diffusion: use {nothing}")
    if objective == "noise" and sample.num_steps > config.diffusion.num_timesteps:
        raise ConfigError(
            f"sample.num_steps={sample.num_steps} is more than diffusion.num_timesteps="
            f"{config.diffusion.num_timesteps}: use at most {config.diffusion.num_timesteps}"
        )
    if sample.negative_prompt and config.text.encoder == "none":
        raise ConfigError(
            f"sample.negative_prompt={sample.negative_prompt!r:.60} is for models that draw from text, and this one "
            "takes classes: leave it out"
        )
    if sample.negative_prompt and sample.cfg_scale == 1:
        raise ConfigError(
            f"sample.negative_prompt={sample.negative_prompt!r:.60} has no effect with sample.cfg_scale=1, which is no "
            "guidance: use a larger scale"
        )
    low, high = sample.cfg_interval
    if not 0 <= low <= high <= 1:
        raise ConfigError(f"sample.cfg_interval={sample.cfg_interval} must be two shares of the timesteps, low to high")


def _positive(config: "Config", section: str, *names: str) -> None:
    _check_each(config, section, names, lambda value: value > 0, "must be greater than 0")


def _not_negative(config: "Config", section: str, *names: str) -> None:
    _check_each(config, section, names, lambda value: value >= 0, "must not be negative")


def _shares(config: "Config", section: str, *names: str) -> None:
    _check_each(config, section, names, lambda value: 0 <= value <= 1, "is not between 0 and 1")


def _check_each(config: "Config", section: str, names: Iterable[str], holds: Callable[..., bool], claim: str) -> None:
    for name in names:
        value = getattr(getattr(config, section), name)
        if not holds(value):
            raise ConfigError(f"{section}.{name}={value} {claim}")


def _divisors(n: int) -> str:
    return ", ".join(str(d) for d in range(1, n + 1) if n % d == 0 and n // d >= 8) or "1"
