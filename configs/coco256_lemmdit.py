"""LEMMDiT on COCO 256x256, text to image (LEDiT v3, section 4.1); sample it at 512x512 and other aspect ratios.

  python train.py --config=configs/coco256_lemmdit.py:LEMMDiT-24/2 --workdir=runs/lemmdit --config.data.path=LATENTS

The argument is FAMILY-SIZE/PATCH: LEMMDiT-24 is the paper's and the default, MMDiT-24 its baseline with sin/cos,
RoPE-MMDiT-24 the one with rotary positions (sampled by --rope_method=ntk, yarn, riflex, dype_ntk or dype_yarn),
NoPE-MMDiT-24 has nothing. S and B are smaller. LATENTS are COCO train2014's, with the CLIP ViT-L/14 states of its
captions (docs/data.md).

The paper: depth 24, width 768, CLIP's text, 200K steps, batch 192; samples by 50 ODE steps with guidance 2.0 (6.0 for
single images). What it does not say is taken from REPA's text-to-image runs: a straight path with times drawn
uniformly, AdamW at a rate of 1e-4 without decay, gradients clipped at 1.0, EMA 0.9999, captions dropped with 0.1,
guidance on all channels. Multi-dilation training as for LEDiT, which is our reading (`ledit_jax/models/mmdit.py`).

Of 40,504 samples for val2014's captions it has FID 29.89, sFID 39.98 and CLIP score 27.82 at 512x512, and FID 6.35 at
256x256; MMDiT with sin/cos has 160.72, 156.38 and 22.94, and 6.32. We have not run this.

Devices as in imagenet256.py, fsdp over 16: LEMMDiT-24/2 at batch 192 takes 3.0 of the 15.75 GiB of a v5e chip on
v5e:4x4, and a step is predicted to take 96 ms. 192 divides among 64 ways at most: on 256 chips give
--config.mesh.data=4 --config.mesh.tensor=4.
"""

from ledit_jax.config import (
    AutoencoderConfig,
    Config,
    DataConfig,
    DiffusionConfig,
    MeshConfig,
    SampleConfig,
    TextConfig,
    TrainConfig,
    model_preset,
)


def get_config(name: str = "LEMMDiT-24/2"):
    """name: FAMILY-SIZE/PATCH, see `ledit_jax.config.model_preset`."""
    model = model_preset(name, dtype="bfloat16", residual_dtype="float32", remat="dots", conv_init="xavier")
    config = Config(
        model=model,
        diffusion=DiffusionConfig(objective="flow"),
        data=DataConfig(source="latents", num_workers=8),
        autoencoder=AutoencoderConfig(kind="sd"),
        text=TextConfig(encoder="clip"),
        train=TrainConfig(
            num_steps=200_000,
            batch_size=192,
            grad_clip=1.0,
            dilation_probability=0.0 if model.conv == "none" else 0.1,
            sample_every=0,
        ),
        mesh=MeshConfig(data=-1, fsdp=16),
        sample=SampleConfig(sampler="euler", num_steps=50, cfg_scale=2.0, cfg_channels="all"),
    )
    return config.to_config_dict()
