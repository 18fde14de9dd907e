"""Printed digits at 16x16: the experiment behind the demo and its checkpoint.

An 8x8 token grid (patch 2), 0.8M parameters. LEDiT learns a flow from scratch, with the inclusive scan, Xavier's
convolution and the norm after it, which find position soonest on small grids:

  python train.py --config=configs/glyphs.py --workdir=runs/glyphs
  python sample.py --checkpoint=runs/glyphs --height=32 --width=32 --class_labels=3,7 --num_samples=20 --out=grid.png

`make glyphs` trains it, measures it and exports it; configs/study_glyphs.py has other methods at this budget. On one
core it takes 50 minutes (4 steps/s). Results are in docs/extrapolation.md.
"""

from configs.digits import by_flow
from ledit_jax.config import Config, DataConfig, SampleConfig, TrainConfig, model_preset
from ledit_jax.errors import ConfigError

_DEMO = dict(num_steps=200, learning_rate=2e-4, warmup_steps=0, decay_steps=0, ema_decay=0.99)
_DEMO |= dict(log_every=5, checkpoint_every=50, keep_every=0)
ARMS = {"ledit": {}, "demo": _DEMO}
"""TrainConfig fields in which an arm differs."""


def experiment() -> Config:
    """What all methods share that learn printed digits, and photographs of that size (configs/study_photos.py)."""
    # Unrolled and in float32: on CPU that is the faster way.
    model = model_preset("LEDiT-S/2", depth=4, width=96, num_heads=4, num_classes=10, scan_layers=False)
    data = DataConfig(source="glyphs", image_height=16, image_width=16, image_channels=1, flip=False)
    train = TrainConfig(
        num_steps=12_000,
        batch_size=64,
        learning_rate=2e-3,
        warmup_steps=200,
        decay_steps=2_000,
        grad_clip=1.0,
        ema_decay=0.999,
        checkpoint_every=500,
        keep_last=2,
        keep_every=1_000,
        sample_every=0,
    )
    return by_flow(Config(model=model, data=data, train=train, sample=SampleConfig(cfg_scale=4.0)))


def get_config(arm: str = "ledit"):
    """arm: ledit, or demo, which trains the shipped checkpoint on."""
    if arm not in ARMS:
        raise ConfigError(f"configs/glyphs.py:{arm} is unknown: use one of {', '.join(ARMS)}")
    config = experiment().replaced("model", scan="d_inclusive", conv_init="xavier", post_norm=True)
    return config.replaced("train", **ARMS[arm]).to_config_dict()
