"""Scenes with captions at 24x24: text to image that needs no download, behind the checkpoint in assets/scenes.

An 8x8 grid of tokens (patch 3), 0.6M parameters, flow matching, the text encoder `words`. As for the digits and in the
paper's, LEMMDiT is fine-tuned from an MMDiT with sin/cos positions.

  python train.py --config=configs/scenes.py:base --workdir=runs/scenes_base
  python train.py --config=configs/scenes.py:lemmdit --workdir=runs/scenes --init_from=runs/scenes_base

LEMMDiT has the inclusive scan, and a convolution that starts from Xavier's noise with a norm after it: what finds
position fastest here. It is the arm `ledit-post-norm` of configs/study_scenes.py, which has the other methods at this
budget. Results are in docs/text_to_image.md.
"""

from ledit_jax.config import (
    Config,
    DataConfig,
    DiffusionConfig,
    FlowConfig,
    SampleConfig,
    TextConfig,
    TrainConfig,
    model_preset,
)
from ledit_jax.errors import ConfigError

NUM_STEPS = {"base": 16_000, "lemmdit": 8_000}
LEARNING_RATE = {"base": 1.5e-3, "lemmdit": 1e-3}


def get_config(arm: str = "lemmdit"):
    """arm: base or lemmdit, see above."""
    return experiment(arm).to_config_dict()


def experiment(arm: str) -> Config:
    if arm not in NUM_STEPS:
        raise ConfigError(f"configs/scenes.py:{arm} is unknown: use one of {', '.join(NUM_STEPS)}")
    sizes = dict(depth=4, width=64, num_heads=2, patch_size=3, scan_layers=False)  # unrolled is faster on CPU
    own = dict(scan="d_inclusive", conv_init="xavier", post_norm=arm == "lemmdit")
    return Config(
        model=model_preset(f"{'MMDiT' if arm == 'base' else 'LEMMDiT'}-S/2", **sizes, **own),
        diffusion=DiffusionConfig(objective="flow"),
        flow=FlowConfig(time_scale=1000.0),
        data=DataConfig(source="scenes", image_height=24, image_width=24, flip=False),
        text=TextConfig(encoder="words", length=12, width=64),
        train=TrainConfig(
            num_steps=NUM_STEPS[arm],
            batch_size=16,
            learning_rate=LEARNING_RATE[arm],
            warmup_steps=100,
            decay_steps=2_000,
            grad_clip=1.0,
            ema_decay=0.998,
            dilation_probability=0.0,
            log_every=100,
            checkpoint_every=500,
            keep_last=2,
            keep_every=0,
            sample_every=0,
        ),
        sample=SampleConfig(sampler="ab2", num_steps=24, cfg_scale=3.0, cfg_channels="all"),
    )
