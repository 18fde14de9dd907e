"""LEDiT on ImageNet 256x256 from scratch, with the paper's settings; sample it at 512x512 and other aspect ratios.

  python train.py --config=configs/imagenet256.py:LEDiT-XL/2 --workdir=runs/xl2 --config.data.path=LATENTS

The argument is FAMILY-SIZE/PATCH: LEDiT, LEDiT*, DiT or NoPE; S, B, L or XL; 2, 4 or 8. LATENTS is a folder of Stable
Diffusion latents that encode_latents.py wrote (docs/data.md).

Paper (arXiv 2503.04344): 400K steps, batch 256, AdamW at a constant 1e-4, EMA 0.9999, label dropout 0.1, dilation 2
on 10% of the steps; samples by 250 steps of DDPM with guidance 1.5. Expected there: FID 15.98 / 29.84 / 56.02 at
384 / 448 / 512 from scratch. imagenet256_refined.py is the better LEDiT*. We have not repeated that run.

Devices: parameters split over 16 (fsdp), what is left of the devices shares out the batch (data); for fewer than 16,
--config.mesh.fsdp=8 or 1. bfloat16 products over float32 parameters, in a float32 residual stream. What lies between
the products is recomputed (remat dots): LEDiT-XL/2 at batch 256 takes 4.5 of the 15.75 GiB of a v5e chip on v5e:4x4,
and its step is predicted to take less than half the time of one that recomputes nothing (remat none).
docs/compile_only.md has the figures, --compile_only=SLICE those of any setting.
"""

import dataclasses

from ledit_jax.config import AutoencoderConfig, Config, DataConfig, MeshConfig, TrainConfig, model_preset


def experiment(name: str = "LEDiT-XL/2") -> Config:
    """name: FAMILY-SIZE/PATCH, see `ledit_jax.config.model_preset`."""
    model = model_preset(name, dtype="bfloat16", residual_dtype="float32", remat="dots", conv_init="xavier")
    data = DataConfig(source="latents", image_height=256, image_width=256, num_workers=8)
    # Multi-dilation is LEDiT's: LEDiT* trains without it, and the baselines have no convolution.
    dilation = 0.1 if name.startswith("LEDiT-") else 0.0
    # Decoding sample grids needs a VAE: give autoencoder.checkpoint as well when turning sample_every on.
    train = TrainConfig(num_steps=400_000, dilation_probability=dilation, sample_every=0)
    config = dataclasses.replace(Config(), model=model, data=data, train=train, mesh=MeshConfig(data=-1, fsdp=16))
    return dataclasses.replace(config, autoencoder=AutoencoderConfig(kind="sd"))


def get_config(name: str = "LEDiT-XL/2"):
    return experiment(name).to_config_dict()
