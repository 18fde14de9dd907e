"""LEDiT on ImageNet 512x512, fine-tuned from a pretrained DiT-XL/2-512 or from a LEDiT trained at 256x256.

  python train.py --config=configs/imagenet512_finetune.py:LEDiT-XL/2 --workdir=runs/ft-512 --init_from=CHECKPOINT \\
      --config.data.path=LATENTS

The paper trains at 512 in this way alone, never from scratch: 100K steps. Its FID, of 10,000 samples: 21.75 / 48.64 /
91.11 at 768 / 896 / 1024 (VisionYaRN 29.46 / 65.58 / 104.62). We have not repeated that run.

Devices: as imagenet512.py, with the same step: 13.4 of the 15.75 GiB of a v5e chip on v5e:4x4. With nothing recomputed
it does not fit (docs/compile_only.md).
"""

from configs import imagenet256_finetune


def get_config(name: str = "LEDiT-XL/2"):
    """name: FAMILY-SIZE/PATCH, see `ledit_jax.config.model_preset`."""
    config = imagenet256_finetune.get_config(name)
    config.data.image_height = config.data.image_width = 512
    config.model.remat, config.model.residual_dtype = "dots", "same"
    return config
