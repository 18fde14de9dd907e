"""Floating-point operations of the network, counted from its config, and what devices can do of them.

Counted are matrix products and the convolution, a multiplication and an addition as two. XLA's own count takes the
body of a scanned loop once, and a program that recomputes activations does more than the model asks for; these do not
change with either.

T tokens, h w token grid, H W latent cells, D width, F MLP width, L depth, P patch size, C channels of the input.
"""

from ledit_jax.config import Config, ModelConfig

PEAK_BF16_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
"""Dense bfloat16 FLOP/s of one device, by `jax.Device.device_kind`, from the makers' data sheets.

TPUs have had two names each in jax; of a TPU7x, a device is one of the chip's two cores. A name stands for one board,
and an H100 for PCIe is slower than this one: a name that is not here has no peak, rather than another's."""

_FREQUENCIES = 256
"""Width of the sinusoids of the timestep."""
_BACKWARD = 2
"""Cost of the backward pass in forward passes: a gradient by the input and one by the weights for each product."""


def forward_flops(config: Config, height: int | None = None, width: int | None = None) -> int:
    """FLOPs of the network for one image of this size in pixels (default: the training size).

    T (L (8 D^2 + 4 D F + 4 T D) + 2 P^2 C D + 4 P^2 C D) + conv + 12 L D^2 + 4 D^2 + 2 D (256 + D), where conv is
    2 D^2 (3 h - 2)(3 w - 2) for a dense convolution over a grid of h x w, its padding not counted, and a D-th of that
    for a depthwise one. In a block: 6 D^2 for queries, keys and values, 2 D^2 for the projection, 4 D F for the MLP,
    4 T D for scores and their use; a causal scan counts in full, because what it masks is computed. For a image:
    adaLN of the blocks and of the last layer, the timestep's MLP. FiTv2's blocks have others, see `_block_flops`.
    """
    model, (H, W, C) = config.model, config.latent_shape(height, width)
    h, w = H // model.patch_size, W // model.patch_size
    T, D, L = h * w, model.width, model.depth
    mlp, adaln = _block_flops(model)
    patch = model.patch_size**2 * C
    taps = (3 * h - 2) * (3 * w - 2)
    conv = {"dense": 2 * D * D * taps, "depthwise": 2 * D * taps, "none": 0}[model.conv]
    per_token = L * (8 * D * D + mlp + 4 * T * D) + 2 * patch * D + 2 * D * 2 * patch
    per_image = adaln + 4 * D * D + 2 * D * (_FREQUENCIES + D)
    return T * per_token + conv + per_image


def _block_flops(model: ModelConfig) -> tuple[int, int]:
    """(one MLP by token, all adaLN by image); FiTv2 has SwiGLU, and adaLN of rank D / 4 beside a shared one."""
    D, F, L = model.width, int(model.width * model.mlp_ratio), model.depth
    if model.block == "fit":
        return 6 * D * (F * 2 // 3), (L * 14 * (D // 4) + 12 * D) * D
    return 4 * D * F, 12 * L * D * D


def train_step_flops(config: Config) -> int:
    """FLOPs of an optimiser step over all devices: forward and backward, without what rematerialisation repeats."""
    return (1 + _BACKWARD) * config.train.batch_size * forward_flops(config)


def model_flops_utilization(flops_per_sec: float, device_kind: str, device_count: int) -> float | None:
    """Share, 0..1, of the devices' bfloat16 peak that `flops_per_sec` is; None for a device without a known peak.

    Against the bfloat16 peak in float32 runs too, so that runs compare.
    """
    peak = PEAK_BF16_FLOPS.get(device_kind)
    return flops_per_sec / (peak * device_count) if peak else None
