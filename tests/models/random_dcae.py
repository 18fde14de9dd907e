"""diffusers' AutoencoderDC at small size, every parameter random."""

import torch
from diffusers import AutoencoderDC

KINDS = ["ResBlock", "ResBlock", "EfficientViTBlock"]
SIZES = dict(
    latent_channels=4,
    attention_head_dim=8,
    encoder_block_types=KINDS,
    decoder_block_types=KINDS,
    encoder_block_out_channels=[8, 16, 16],
    decoder_block_out_channels=[8, 16, 16],
    encoder_layers_per_block=[1, 2, 1],
    decoder_layers_per_block=[1, 1, 2],
    encoder_qkv_multiscales=[[], [], [5]],
    decoder_qkv_multiscales=[[], [], [5]],
    scaling_factor=0.41407,
)
STEPS = {
    "strides": dict(downsample_block_type="Conv", upsample_block_type="interpolate"),
    "folds": dict(downsample_block_type="pixel_unshuffle", upsample_block_type="pixel_shuffle"),
}


def torch_dcae(steps: str) -> AutoencoderDC:
    """Weights keep activations near 1; no norm or bias keeps its 1 or 0."""
    model = AutoencoderDC(**SIZES, **STEPS[steps]).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            is_scale = "norm" in name and name.endswith("weight")
            p.copy_(noise * p[0].numel() ** -0.5 if p.ndim > 1 else 0.3 * noise + is_scale)
    return model
