"""Handwritten digits at 16x16: the experiment behind the shipped checkpoint and the demo.

A 4x4 token grid (patch 4), about 1.1M parameters. As in the paper, LEDiT is fine-tuned from a DiT, and the convolution
starts as the identity. The shipped checkpoint learned a flow:

  python train.py --config=configs/digits.py:flow-base --workdir=runs/base                DiT, sin/cos positions
  python train.py --config=configs/digits.py:flow --workdir=runs/ledit --init_from=runs/base

`make digits` does both, measures LEDiT and exports it. :base and :ledit are the same by DiT's diffusion, the paper's
process. configs/study_digits.py has the other methods at this budget. On two quiet cores the base takes 6 minutes and
LEDiT 5. Results are in docs/extrapolation.md and docs/flow.md.
"""

import dataclasses

from ledit_jax.config import Config, DataConfig, DiffusionConfig, FlowConfig, SampleConfig, TrainConfig, model_preset
from ledit_jax.errors import ConfigError

FAMILIES = {"base": "DiT", "ledit": "LEDiT", "flow-base": "DiT", "flow": "LEDiT", "demo": "LEDiT"}
NUM_STEPS = {"base": 4_000, "ledit": 3_000, "flow-base": 4_000, "flow": 3_000, "demo": 200}
LEARNING_RATE = {"base": 1e-3, "ledit": 5e-4, "flow-base": 1e-3, "flow": 5e-4, "demo": 1e-4}


def get_config(arm: str = "ledit"):
    """arm: one of FAMILIES, see above; demo trains the shipped checkpoint on."""
    if arm not in FAMILIES:
        raise ConfigError(f"configs/digits.py:{arm} is unknown: use one of {', '.join(FAMILIES)}")
    # Unrolled and in float32: on CPU that is the faster way.
    model = model_preset(
        f"{FAMILIES[arm]}-S/4",
        depth=6,
        width=96,
        num_heads=4,
        num_classes=10,
        scan="d_inclusive",
        scan_layers=False,
    )
    data = DataConfig(source="digits", image_height=16, image_width=16, image_channels=1, flip=False)
    demo = arm == "demo"
    train = TrainConfig(
        num_steps=NUM_STEPS[arm],
        batch_size=64,
        learning_rate=LEARNING_RATE[arm],
        warmup_steps=0 if demo else 100,
        decay_steps=0 if demo else 1_000,
        grad_clip=1.0,
        ema_decay=0.99 if demo else 0.998,
        dilation_probability=0.1 if FAMILIES[arm] == "LEDiT" else 0.0,
        log_every=10 if demo else 100,
        checkpoint_every=50 if demo else 250,
        keep_last=2,
        keep_every=0,
        sample_every=0 if demo else 1_000,
    )
    config = dataclasses.replace(Config(), model=model, data=data, train=train)
    return _with_process(config, by_flow=arm not in ("base", "ledit")).to_config_dict()


def _with_process(config: Config, by_flow: bool) -> Config:
    if not by_flow:
        return dataclasses.replace(config, sample=SampleConfig(sampler="dpmpp", num_steps=25, cfg_scale=4.0))
    # Fed the times that a diffusion's networks are, so that training differs in nothing else.
    flow = FlowConfig(time_scale=1_000.0)
    sample = SampleConfig(sampler="ab2", num_steps=16, cfg_scale=1.5)
    return dataclasses.replace(config, diffusion=DiffusionConfig(objective="flow"), flow=flow, sample=sample)
