"""LEDiT on ImageNet 256x256 as a flow, fine-tuned from a pretrained SiT, of which the smallest is S/2 (33M).

  python convert_torch_weights.py --input=SiT-S-2-256.pt --model=SiT-S/2 --output=checkpoints/sit-s-2
  python train.py --config=configs/imagenet256_flow_finetune.py:LEDiT-S/2 --workdir=runs/flow-ft \\
      --init_from=checkpoints/sit-s-2 --config.data.path=LATENTS --config.mesh.fsdp=1

SiT's network is fed 1 - t and has twice the channels, of which half are unused: flow.convention=sit keeps both. From a
checkpoint of REPA add --config.flow.convention=noise_time, and --config.sample.cfg_channels=all for its guidance. The
convolution starts as the identity, so step 0 is that SiT without its positions.

From a DiT that was trained by diffusion, the last layer starts anew: add --config.flow.convention=noise_time
--config.flow.time_scale=1000, so that the network is fed the times that it knows.

Devices as in imagenet256.py: LEDiT-XL/2 takes 4.5 of the 15.75 GiB of a v5e chip on v5e:4x4.

100K steps as the paper fine-tunes a DiT; there is no published LEDiT by flow, and we have not run this.
"""

from configs import imagenet256_flow


def get_config(name: str = "LEDiT-XL/2"):
    """name: FAMILY-SIZE/PATCH, see `ledit_jax.config.model_preset`."""
    config = imagenet256_flow.get_config(name)
    config.train.num_steps = 100_000
    config.model.conv_init = "identity"
    config.flow.convention = "sit"
    return config
