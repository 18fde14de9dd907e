"""LEDiT on ImageNet 256x256 as a flow (SiT's training), from scratch; sample it at 512x512 and other aspect ratios.

  python train.py --config=configs/imagenet256_flow.py:LEDiT-XL/2 --workdir=runs/xl2-flow --config.data.path=LATENTS

The argument is FAMILY-SIZE/PATCH as in imagenet256.py, whose settings these are but for the process: the network learns
the velocity of a straight path between data and noise, at times drawn uniformly, and its output has no variance.
Samples by 250 steps of SiT's SDE with guidance 1.5; `--sampler=ab2 --num_steps=25` is ten times as fast (docs/flow.md).

SiT (arXiv 2401.08740) has FID 2.06 for SiT-XL/2 at 256x256 after 7M steps. There is no published LEDiT by flow, and we
have not run this. Beyond the training size try --time_shift=auto.

Devices as in imagenet256.py: LEDiT-XL/2 takes 4.5 of the 15.75 GiB of a v5e chip on v5e:4x4.

For MeanFlow, samples in one or two steps: --config.flow.mean_flow_share=0.25 --config.model.span_embed=True
--config.flow.times=logit_normal --config.flow.times_mean=-0.4 --config.sample.sampler=meanflow
--config.sample.num_steps=2.
"""

from configs import imagenet256


def get_config(name: str = "LEDiT-XL/2"):
    """name: FAMILY-SIZE/PATCH, see `ledit_jax.config.model_preset`."""
    config = imagenet256.get_config(name)
    config.diffusion.objective = "flow"
    config.sample.sampler = "sde"
    return config
