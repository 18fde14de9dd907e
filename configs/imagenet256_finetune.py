"""LEDiT on ImageNet 256x256, fine-tuned from a pretrained DiT: the paper's main setting.

  python train.py --config=configs/imagenet256_finetune.py:LEDiT-XL/2 --workdir=runs/ft --init_from=CHECKPOINT \\
      --config.data.path=LATENTS

CHECKPOINT is a DiT that convert_torch_weights.py made (docs/porting.md). Its positional table is dropped and the
convolution starts as the identity, so step 0 is that DiT without its positions.

Every 10,000th checkpoint stays, for FID over training steps (experiments/sweep.py, --steps).

Paper: 100K steps, the rest as in imagenet256.py. Its FID, of 50,000 samples: 9.34 / 17.62 / 33.25 at 384 / 448 / 512
(35.86 at 512 of 10,000), and 2.38 at 256, where DiT has 2.27. We have not repeated that run.

Devices: as imagenet256.py, with the same step: 4.5 of the 15.75 GiB of a v5e chip on v5e:4x4.
"""

from configs import imagenet256


def get_config(name: str = "LEDiT-XL/2"):
    """name: FAMILY-SIZE/PATCH, see `ledit_jax.config.model_preset`."""
    config = imagenet256.get_config(name)
    config.train.num_steps = 100_000
    config.train.keep_every = 10_000
    config.model.conv_init = "identity"
    return config
