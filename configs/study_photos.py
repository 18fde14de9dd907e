"""The extrapolation study on coloured photographs, for one GPU: trained at 16x16, drawn at 24x24 and 32x32.

  python -m experiments.study --config=configs/study_photos.py --workdir=runs/study_photos \\
      --config.images=PHOTOS.zip

PHOTOS is a zip or a folder, with a folder of images for each of ten classes, 32 pixels or more a side, such as those of
CIFAR-10. Every sixth image is held out. Patch 2, so an 8x8 grid of tokens; 3,000 steps of a common DiT, then 2,000 of
each arm. Meant for eight minutes of one H100. That is an estimate (its parts are in docs/extrapolation.md): the full
study has not been run.
"""

import dataclasses

from experiments.study.config import StudyConfig
from ledit_jax.config import Config, DataConfig, SampleConfig, TrainConfig, model_preset

METHODS = ("dit", "rope", "ntk", "yarn", "nope", "ledit")


def get_config():
    model = model_preset("LEDiT-S/2", depth=8, width=256, num_heads=4, num_classes=10, dtype="bfloat16")
    data = DataConfig(source="image_folder", image_height=16, image_width=16, image_channels=3, num_workers=8)
    train = TrainConfig(
        batch_size=256,
        learning_rate=5e-4,
        warmup_steps=100,
        decay_steps=1_000,
        grad_clip=1.0,
        ema_decay=0.998,
        checkpoint_every=1_000,
        keep_last=1,
        keep_every=0,
        sample_every=0,
    )
    sample = SampleConfig(sampler="dpmpp", num_steps=25, cfg_scale=1.5)
    return StudyConfig(
        experiment=dataclasses.replace(Config(), model=model, data=data, train=train, sample=sample),
        methods=METHODS,
        sizes=("16x16", "24x24", "32x32"),
        steps=2_000,
        base_steps=3_000,
        base_learning_rate=1e-3,
        per_class=100,
        judge_steps=1_500,
    ).to_config_dict()
