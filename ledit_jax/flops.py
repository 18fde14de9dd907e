"""Floating-point operations of the network, counted from its parameters, and what devices can do of them.

Counted are matrix products and the convolution, a multiplication and an addition as two. XLA's own count takes the
body of a scanned loop once, and a program that recomputes activations does more than the model asks for; these do not
change with either.

T tokens of the image on an h x w grid, S tokens of a text before them, D width.
"""

import math
import re

from flax import nnx
from flax.traverse_util import flatten_dict

from ledit_jax.models import Params
from ledit_jax.models.autoencoders import AutoencoderSizes, abstract_vae
from ledit_jax.models.condition import EMPTY_CAPTION
from ledit_jax.models.dcae_config import DCAEConfig

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

_BACKWARD = 2
"""Cost of the backward pass in forward passes: a gradient by the input and one by the weights for each product."""
_PER_IMAGE = re.compile(r"adaln|timestep_embed")
"""Kernels that a whole image goes through once; all others see every token of their stream."""
_TEXT = re.compile(r"/text/|^text_embed/")
"""Kernels of the text's stream."""


def forward_flops(params: Params, grid: tuple[int, int]) -> int:
    """FLOPs of the network for one image of h x w tokens, from its (abstract) parameters' names and shapes.

    A text's tokens are those of the empty caption.

    A kernel of n numbers costs 2 n for each token, or for each image where it belongs to adaLN or the timestep's MLP.
    The convolution costs 2 D^2 (3 h - 2)(3 w - 2), its padding not counted, or a D-th of that where it is depthwise.
    Scores and their use cost 4 (S + T) D by token and layer; a causal scan counts in full, because what it masks is
    computed, and so does the last block's text, whose output nobody reads.
    """
    h, w = grid
    S, T, total = params[EMPTY_CAPTION].shape[0] if EMPTY_CAPTION in params else 0, h * w, 0
    for path, leaf in flatten_dict(params, sep="/").items():
        if not path.endswith("kernel"):
            continue
        size = math.prod(leaf.shape)
        if path == "conv/kernel":
            total += 2 * size // 9 * (3 * h - 2) * (3 * w - 2)
        else:
            total += 2 * size * (1 if _PER_IMAGE.search(path) else S if _TEXT.search(path) else T)
        if path.endswith("attn/qkv/kernel") and not _TEXT.search(path):
            layers = math.prod(leaf.shape[:-2])  # the last block of an MMDiT is no stack
            total += 4 * (S + T) ** 2 * layers * leaf.shape[-2]
    return total


def decoder_flops(vae: AutoencoderSizes, cells: tuple[int, int]) -> int:
    """FLOPs of an autoencoder's decoder for one image of so many latent cells.

    A kernel of n numbers costs 2 n for each place that it is applied at, and attention over the cells 4 C for each pair
    of them. DC-AE's attention is linear: at each of its scales it costs 4 K C for each place, with K of a head.
    """
    decoder, count = nnx.to_pure_dict(abstract_vae(vae)[1])["decoder"], math.prod(cells)
    last, is_dc = len(decoder["levels"]) - 1, isinstance(vae, DCAEConfig)
    total = 0
    for path, leaf in flatten_dict(decoder).items():
        if path[-1] != "kernel":
            continue
        level = last if path[0] == "conv_out" else 0  # how often sides have been doubled before it
        if path[0] == "levels":
            level = last - path[1] if is_dc else path[1] + ("upsample" in path)
            level -= is_dc and vae.folds and path[3] == "conv"
        places = count * 4**level
        total += 2 * math.prod(leaf.shape) * places
        if path[-2] == "query":
            width = leaf.shape[0]
            total += 4 * places * width * (vae.head_dim * (1 + len(vae.scales)) if is_dc else places)
    return total


def train_step_flops(params: Params, grid: tuple[int, int], batch_size: int) -> int:
    """FLOPs of an optimiser step over all devices: forward and backward, without what rematerialisation repeats."""
    return (1 + _BACKWARD) * batch_size * forward_flops(params, grid)


def model_flops_utilization(flops_per_sec: float, device_kind: str, device_count: int) -> float | None:
    """Share, 0..1, of the devices' bfloat16 peak that `flops_per_sec` is; None for a device without a known peak.

    Against the bfloat16 peak in float32 runs too, so that runs compare.
    """
    peak = PEAK_BF16_FLOPS.get(device_kind)
    return flops_per_sec / (peak * device_count) if peak else None
