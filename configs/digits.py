"""Handwritten digits at 16x16: the experiment behind the shipped checkpoint and the demo.

An 8x8 token grid, about 2M parameters. As in the paper, LEDiT is fine-tuned from a DiT, with the convolution
starting as the identity; the baselines go on from the same DiT for as many steps.

  python train.py --config=configs/digits.py:base --workdir=runs/digits/base                     DiT, sin/cos positions
  python train.py --config=configs/digits.py:ledit --workdir=runs/digits/ledit --init_from=runs/digits/base
  python train.py --config=configs/digits.py:dit --workdir=runs/digits/dit --init_from=runs/digits/base
  python train.py --config=configs/digits.py:nope --workdir=runs/digits/nope --init_from=runs/digits/base

`make digits` runs the first two, `make digits-compare` all four. Time and results: see README.md.
"""

import dataclasses

from ledit_jax.config import Config, ConfigError, DataConfig, SampleConfig, TrainConfig, model_preset

FAMILIES = {"base": "DiT", "ledit": "LEDiT", "dit": "DiT", "nope": "NoPE", "demo": "LEDiT"}
BASE_STEPS, FINETUNE_STEPS = 4_000, 3_000


def get_config(arm: str = "ledit"):
    """arm: base, ledit, dit or nope (see above)."""
    if arm not in FAMILIES:
        raise ConfigError(f"configs/digits.py:{arm} is unknown: use one of {', '.join(FAMILIES)}")
    model = model_preset(f"{FAMILIES[arm]}-S/2", depth=6, width=128, num_heads=4, num_classes=10, scan="d_inclusive")
    data = DataConfig(source="digits", image_height=16, image_width=16, image_channels=1, flip=False)
    train = TrainConfig(
        num_steps=BASE_STEPS if arm == "base" else FINETUNE_STEPS,
        batch_size=64,
        learning_rate=1e-3 if arm == "base" else 5e-4,
        warmup_steps=100,
        decay_steps=1_000,
        grad_clip=1.0,
        ema_decay=0.998,
        label_dropout=0.1,
        dilation_probability=0.1 if arm == "ledit" else 0.0,
        log_every=50,
        checkpoint_every=500,
        keep_every=0,
        sample_every=1_000,
    )
    sample = SampleConfig(sampler="dpmpp", num_steps=25, cfg_scale=2.0)
    return dataclasses.replace(Config(), model=model, data=data, train=train, sample=sample).to_config_dict()
