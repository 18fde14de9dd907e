"""Your own pictures on one GPU, or on this machine: what to type is in docs/your_own_pictures.md.

  python train.py --config=configs/own_pictures.py:pixels --workdir=runs/own --config.data.path=PICTURES
  python train.py --config=configs/own_pictures.py:small,3 --workdir=runs/own --config.data.path=LATENTS

The argument is RECIPE[,CLASSES]. PICTURES is a folder of images, LATENTS what encode_latents.py made of one. CLASSES is
the number of its class folders, 1 without any: then nothing is told to the network, and no guidance is used.

  pixels     32x32 pixels, no autoencoder; for a CPU
  small      256x256 in latents, LEDiT-S/2; base: LEDiT-B/2; large: LEDiT-L/2
  finetune   LEDiT-XL/2 from a converted DiT, with --init_from

Which of them fits which memory: python benchmarks/own_pictures.py. On data as small as this, expect the pictures to be
learned by heart after some thousand epochs: stop by the sample grids. Not run on a GPU by us.
"""

import dataclasses

from ledit_jax.config import AutoencoderConfig, Config, DataConfig, SampleConfig, TrainConfig, model_preset
from ledit_jax.errors import ConfigError

# Recipe -> (size of the network, images a step, what is recomputed, steps, learning rate).
RECIPES = {
    "pixels": ("S", 32, "none", 10_000, 5e-4),
    "small": ("S", 64, "none", 100_000, 1e-4),
    "base": ("B", 64, "dots", 100_000, 1e-4),
    "large": ("L", 32, "dots", 100_000, 1e-4),
    "finetune": ("XL", 16, "full", 20_000, 5e-5),
}


def get_config(argument: str = "small"):
    """argument: RECIPE[,CLASSES], see above."""
    recipe, _, classes = argument.partition(",")
    if recipe not in RECIPES or not (classes or "1").isdecimal():
        raise ConfigError(f"configs/own_pictures.py:{argument} is unknown: RECIPE[,CLASSES] of {', '.join(RECIPES)}")
    size, batch_size, remat, num_steps, rate = RECIPES[recipe]
    num_classes = int(classes or 1)
    pixels = recipe == "pixels"
    # In float32 and unrolled on a CPU; there a small network on 8x8 tokens has to do.
    on_cpu = dict(depth=6, width=192, num_heads=6, scan_layers=False) if pixels else {}
    on_gpu = {} if pixels else dict(dtype="bfloat16", residual_dtype="float32", remat=remat)
    model = model_preset(f"LEDiT-{size}/{4 if pixels else 2}", num_classes=num_classes, **on_cpu, **on_gpu)
    side = 32 if pixels else 256
    data = DataConfig(source="image_folder" if pixels else "latents", image_height=side, image_width=side)
    train = TrainConfig(
        num_steps=num_steps,
        batch_size=batch_size,
        learning_rate=rate,
        warmup_steps=200,
        grad_clip=1.0,
        ema_decay=0.999,
        label_dropout=0.1 if num_classes > 1 else 0.0,
        log_every=50,
        checkpoint_every=1_000,
        keep_last=2,
        keep_every=0,
        sample_every=1_000 if pixels else 0,  # of latents, with autoencoder.checkpoint
    )
    sample = SampleConfig(sampler="dpmpp", num_steps=25, cfg_scale=2.0 if num_classes > 1 else 1.0)
    config = dataclasses.replace(Config(), model=model, data=data, train=train, sample=sample)
    autoencoder = AutoencoderConfig(kind="none" if pixels else "sd")
    return dataclasses.replace(config, autoencoder=autoencoder).to_config_dict()
