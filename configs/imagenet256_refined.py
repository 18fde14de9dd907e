"""The refined LEDiT, LEDiT* of the paper's third version, on ImageNet 256x256 from scratch.

  python train.py --config=configs/imagenet256_refined.py --workdir=runs/xl2-refined --config.data.path=LATENTS

Another size is an argument, in quotes for the shell: "--config=configs/imagenet256_refined.py:LEDiT*-B/2".

As imagenet256.py with three changes: a LayerNorm after the convolution, ONE causal layer, and no multi-dilation. Which
layer is causal the paper does not say; ours is the first. Paper (appendix F, tables 2, 6 and 11): FID 12.07 / 20.91 /
34.29 at 384 / 448 / 512, where LEDiT has 15.98 / 29.84 / 56.02; of 10,000 samples at 512, plain 59.32, with the norm
40.45, without multi-dilation 39.84, with one causal layer 36.79. We have not repeated that run.

Devices: as imagenet256.py; 4.2 of the 15.75 GiB of a v5e chip on v5e:4x4.
"""

from configs import imagenet256


def get_config(name: str = "LEDiT*-XL/2"):
    """name: FAMILY-SIZE/PATCH, see `ledit_jax.config.model_preset`."""
    return imagenet256.get_config(name)
