"""Every setting of an experiment with its default, a dataclass for each section."""

from dataclasses import dataclass, field
from typing import Any, Literal

BlockOrder = Literal["sa_ca", "ca_sa", "sa_then_ca", "ca_then_sa", "sa", "ca", "single_ca"]
ScanVariant = Literal["a", "b", "c", "d", "d_inclusive", "none"]


@dataclass(frozen=True)
class ModelConfig:
    """A diffusion transformer: LEDiT by default, DiT and NoPE as other settings (see `model_preset`)."""

    network: Literal["ledit", "mmdit"] = "ledit"
    """ledit is told classes; mmdit has a second stream for text, and needs `text.encoder`."""
    depth: int = 12
    width: int = 384
    num_heads: int = 6
    patch_size: int = 2
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    """Labels are 0 .. num_classes - 1; the null label of guidance is num_classes. Without effect in an mmdit."""
    position: Literal["none", "sincos", "learnable", "rope", "rpe2d", "lookhere"] = "none"
    """LEDiT has none; sincos is DiT's table, rope turns on two axes, rpe2d does by positions that training draws at
    random, lookhere directs heads and dampens distance."""
    block: Literal["dit", "fit"] = "dit"
    """fit is FiTv2's: SwiGLU, normalised queries and keys, low-rank adaLN."""
    block_order: BlockOrder = "sa_ca"
    """SA is full self-attention, CA causal attention over `scan`; LEDiT alternates them, SA first."""
    scan: ScanVariant = "d"
    conv: Literal["none", "dense", "depthwise"] = "dense"
    """The 3x3 convolution after patchify."""
    conv_init: Literal["identity", "xavier", "identity_noise"] = "identity"
    """identity_noise: the identity and half of Xavier's noise."""
    post_norm: bool = False
    """LayerNorm after the convolution (LEDiT*, the paper's refined model)."""
    qk_norm: Literal["none", "rms"] = "none"
    """rms: RMSNorm with a learned scale over each head's queries and keys, against late spikes of the loss."""
    span_embed: bool = False
    """A second embedding, of the time between the two ends of a jump: MeanFlow's networks."""
    causal_from_timestep: float = 0.0
    """T' of the paper's appendix C: attention is causal for t >= T' of the process's own time; 0 is always."""
    norm_eps: float = 1e-6
    timestep_max_period: float = 10_000.0
    timestep_frequency_shift: float = 0.0
    """Frequencies are max_period ** (-i / (128 - shift)): 0 is DiT's own, 1 is diffusers' port of it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What matrix products compute in; parameters, norms, softmax and timesteps stay float32."""
    residual_dtype: Literal["same", "float32"] = "same"
    """Of the sum that blocks add to: `dtype`, or float32 as PyTorch's autocast keeps it."""
    matmul_precision: Literal["default", "high", "highest"] = "default"
    """Of float32 products: JAX's default is TF32 on GPUs and bfloat16 on TPUs, highest is float32 (docs/porting.md)."""
    scan_layers: bool = True
    """Compile one repeating unit and scan over it; false compiles longer, and runs faster (docs/compile_only.md)."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes: nothing, all but matrix products, or every block."""
    attention: Literal["auto", "reference", "xla", "cudnn", "splash"] = "auto"
    """Backend: `cudnn` on NVIDIA GPUs, `splash` on TPUs, `xla` anywhere; auto picks one. See docs/attention.md."""

    @property
    def precision(self) -> str | None:
        """`matmul_precision` as jax takes it; None leaves it to `jax.default_matmul_precision`."""
        return None if self.matmul_precision == "default" else self.matmul_precision

    @property
    def residual(self) -> str:
        """The dtype of the residual stream."""
        return self.dtype if self.residual_dtype == "same" else self.residual_dtype


@dataclass(frozen=True)
class DiffusionConfig:
    """What the network learns to undo: noise along DiT's schedule by default."""

    objective: Literal["noise", "flow"] = "noise"
    """noise: DiT's diffusion, which predicts noise and variance, by the settings here; flow: see `FlowConfig`."""
    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02


@dataclass(frozen=True)
class FlowConfig:
    """Flow matching, where `diffusion.objective` is flow: velocities of a path from data, time 0, to noise, time 1."""

    path: Literal["linear", "gvp"] = "linear"
    """linear: (1 - t) data + t noise; gvp: cosine and sine of pi t / 2."""
    times: Literal["uniform", "logit_normal"] = "uniform"
    """How times are drawn in training; logit_normal: the sigmoid of a normal of `times_mean` and `times_std`."""
    times_mean: float = 0.0
    times_std: float = 1.0
    time_shift: str = "none"
    """Of the times in training: none, a number (above 1 trains more on noise), or auto, sqrt(tokens / base_tokens)."""
    base_tokens: int = 0
    """Tokens for which no shift is needed; 0: those of the training size. auto means this, in sampling too."""
    time_scale: float = 1.0
    """The network is fed time_scale t: 1000 where it starts from a DiT trained by diffusion."""
    convention: Literal["noise_time", "sit"] = "noise_time"
    """noise_time: the network is fed t and returns C channels. sit: it is fed 1 - t and returns 2C channels, the second
    half unused: the weights of SiT, whose time runs the other way."""
    mean_flow_share: float = 0.0
    """Above 0, average velocities are learned (MeanFlow), with this share of a batch on a jump; the paper has 0.25.
    Needs model.span_embed; attention is then xla's, since fused kernels have no derivative along a direction."""


@dataclass(frozen=True)
class DataConfig:
    """Where images come from, and their size in pixels."""

    source: Literal[
        "digits", "glyphs", "shapes", "scenes", "image_folder", "coco", "captioned_folder", "tfds", "latents"
    ] = "digits"
    path: str = ""
    """Folder of `image_folder`, `coco`, `captioned_folder` and `latents`; data_dir of `tfds` (empty: TFDS's own)."""
    annotations: str = ""
    """COCO's JSON of captions, of `coco`."""
    name: str = ""
    """Data set name of `tfds`, for example imagenet2012."""
    split: str = "train"
    image_height: int = 256
    image_width: int = 256
    image_channels: int = 3
    flip: bool = True
    """Mirror half of the images, drawn afresh every epoch."""
    min_crop_share: float = 1.0
    """Below 1, crops are random, drawn afresh every epoch: their sides are this share of the largest one's, or more."""
    num_workers: int = 0
    """Grain worker processes, at most one for each core; 0 reads in the training process."""
    max_bad_share: float = 0.01
    """Share of unreadable images above which the run stops."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """The space diffusion runs in: pixels, or latents of an autoencoder such as Stable Diffusion's."""

    kind: Literal["none", "sd"] = "none"
    checkpoint: str = ""
    """A VAE checkpoint of ours (see docs/porting.md); needed for decoding samples, not for training on latents."""
    downsample: int = 8
    latent_channels: int = 4
    scale: float = 0.18215
    latents_mean: tuple[float, ...] = ()
    """Of each channel, or none: what is learned is (latent - mean) / std * scale."""
    latents_std: tuple[float, ...] = ()

    @property
    def offsets(self) -> tuple[float, ...]:
        return self.latents_mean or (0.0,) * self.latent_channels

    @property
    def factors(self) -> tuple[float, ...]:
        return tuple(self.scale / std for std in self.latents_std or (1.0,) * self.latent_channels)


@dataclass(frozen=True)
class TextConfig:
    """What captions become before a text-conditioned network sees them: states [length, width] of a text encoder."""

    encoder: Literal["none", "words", "clip"] = "none"
    """clip: the last hidden states of CLIP's text encoder; words: a fixed code for each word of a small vocabulary."""
    checkpoint: str = ""
    """A text encoder checkpoint of ours, for clip; needed for prompts, not for training on stored states."""
    length: int = 77
    """Tokens of a caption, padding included."""
    width: int = 768
    """Of a token's state."""


@dataclass(frozen=True)
class TrainConfig:
    """The training run. Defaults are the paper's."""

    num_steps: int = 400_000
    batch_size: int = 256
    """Images per optimiser step, over all devices."""
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
    """Steps whose loss, gradient or weights are not finite are never applied; more of them than this, since a start,
    stop the run."""
    ema_decay: float = 0.9999
    label_dropout: float = 0.1
    dilation_probability: float = 0.1
    """Share of steps on which the convolution is dilated by one of `dilation_rates` (multi-dilation training)."""
    dilation_rates: tuple[int, ...] = (2,)
    seed: int = 0
    log_every: int = 100
    checkpoint_every: int = 5_000
    keep_last: int = 3
    """The newest checkpoints; at least two stay, since the last shows to be good only a step later."""
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


def _setting(default: Any, text: str) -> Any:
    """A field whose text the commands show in --help."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class SampleConfig:
    """How samples are drawn unless the caller says otherwise."""

    sampler: Literal["ddpm", "ddim", "dpmpp", "euler", "heun", "ab2", "sde", "meanflow"] = _setting(
        "ddpm",
        "ddpm, ddim or dpmpp (DPM-Solver++ of second order, good from 25 steps on); of a flow euler, heun, ab2 (of "
        "second order, good from 16 steps on), dpmpp, sde (SiT's) or meanflow.",
    )
    num_steps: int = _setting(250, "Network calls, at most the timesteps of a diffusion (1000).")
    cfg_scale: float = _setting(1.5, "Classifier-free guidance: 1 is none, 1.5 for numbers, 4 for single images.")
    cfg_channels: Literal["3", "all"] = _setting("3", "Channels that are guided: 3 (DiT's published numbers) or all.")
    negative_prompt: str = _setting(
        "", "Of a model that draws from text: what guidance leads away from, in place of the empty caption."
    )
    cfg_interval: tuple[float, float] = _setting(
        (0.0, 1.0), "LOW,HIGH: guide while time / end time, 1000 for DiT's diffusion, lies between."
    )
    time_shift: str = _setting(
        "none", "Of a flow's times: none, a number (above 1 spends more on noise), or auto, sqrt(tokens / trained)."
    )
    sde_diffusion: Literal["sigma", "sbdm", "increasing_decreasing"] = _setting(
        "sigma", "Noise that the sampler sde adds: sigma (SiT's results), sbdm or increasing_decreasing."
    )
    rope_method: Literal["plain", "ntk", "yarn", "riflex", "dype_ntk", "dype_yarn"] = _setting(
        "plain", "Rotary positions beyond the trained grid: plain, ntk, yarn, riflex, dype_ntk or dype_yarn."
    )
    attention_scaling: Literal["auto", "on", "off"] = _setting(
        "auto",
        "Multiply logits by sqrt(log N / log T) for N tokens after training on T < N: on, off, or auto, which is on "
        "unless the positions sharpen attention themselves (yarn, dype_yarn).",
    )
