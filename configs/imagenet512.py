"""LEDiT on ImageNet 512x512 from scratch; sample it at 768x768 and 1024x1024.

  python train.py --config=configs/imagenet512.py:LEDiT-XL/2 --workdir=runs/xl2-512 --config.data.path=LATENTS

As imagenet256.py, with latents of 512x512 images: 1,024 tokens at patch 2. The paper only fine-tunes at 512
(imagenet512_finetune.py), so it has no figure for this run, and we have none either.

Devices: everything but matrix products is recomputed (remat dots), and the residual stream is bfloat16. That takes 13.4
of the 15.75 GiB of a v5e chip on v5e:4x4; a float32 stream takes 14.5, and a seventh more time as predicted.
"""

from configs import imagenet256


def get_config(name: str = "LEDiT-XL/2"):
    """name: FAMILY-SIZE/PATCH, see `ledit_jax.config.model_preset`."""
    config = imagenet256.get_config(name)
    config.data.image_height = config.data.image_width = 512
    config.model.remat, config.model.residual_dtype = "dots", "same"
    return config
