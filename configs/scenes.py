"""Scenes with captions at 24x24: text to image that needs no download.

An 8x8 grid of tokens (patch 3), 0.6M parameters, flow matching, the text encoder `words`. As in the paper's text to
image, every method is trained from scratch.

  python train.py --config=configs/scenes.py:lemmdit --workdir=runs/scenes
  python sample.py --checkpoint=runs/scenes --height=36 --width=36 --prompt="a red disc above a blue square" \\
      --num_samples=8 --out=grid.png

LEMMDiT has the inclusive scan, and a convolution that starts from Xavier's noise with a norm after it: what finds
position fastest on small grids. `mmdit` has sin/cos positions and `rope` rotary ones, in all else alike.
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

FAMILIES = {"lemmdit": "LEMMDiT", "mmdit": "MMDiT", "rope": "RoPE-MMDiT"}


def get_config(arm: str = "lemmdit"):
    """arm: lemmdit, mmdit or rope, see above."""
    return experiment(arm).to_config_dict()


def experiment(arm: str) -> Config:
    """The same before flags override it. Raises ConfigError for an unknown arm."""
    if arm not in FAMILIES:
        raise ConfigError(f"configs/scenes.py:{arm} is unknown: use one of {', '.join(FAMILIES)}")
    sizes = dict(depth=4, width=128, num_heads=4, patch_size=3, scan_layers=False)  # unrolled is faster on CPU
    own = dict(scan="d_inclusive", conv_init="xavier", post_norm=arm == "lemmdit")
    return Config(
        model=model_preset(f"{FAMILIES[arm]}-S/2", **sizes, **own),
        diffusion=DiffusionConfig(objective="flow"),
        flow=FlowConfig(time_scale=1000.0),
        data=DataConfig(source="scenes", image_height=24, image_width=24, flip=False),
        text=TextConfig(encoder="words", length=12, width=64),
        train=TrainConfig(
            num_steps=20_000,
            batch_size=32,
            learning_rate=1e-3,
            warmup_steps=200,
            decay_steps=6_000,
            grad_clip=1.0,
            ema_decay=0.999,
            dilation_probability=0.0,
            log_every=100,
            checkpoint_every=500,
            keep_last=1,
            keep_every=0,
            sample_every=0,
        ),
        sample=SampleConfig(sampler="ab2", num_steps=24, cfg_scale=2.0, cfg_channels="all"),
    )
