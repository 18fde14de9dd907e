"""Handwritten digits at 16x16: the experiment behind the checkpoint in assets/digits.

A 4x4 token grid (patch 4), about 1.1M parameters. As in the paper, LEDiT is fine-tuned from a DiT, and the convolution
starts as the identity. The shipped checkpoint learned a flow:

  python train.py --config=configs/digits.py:flow-base --workdir=runs/base                DiT, sin/cos positions
  python train.py --config=configs/digits.py:flow --workdir=runs/ledit --init_from=runs/base

`make digits` does both, measures LEDiT and exports it. :base and :ledit are the same by DiT's diffusion, the paper's
process. configs/study_digits.py has the other methods at this budget. On two quiet cores the base takes 6 minutes and
LEDiT 5. Results are in docs/extrapolation.md and docs/flow.md.
"""

import dataclasses
from typing import NamedTuple

from ledit_jax.config import Config, DataConfig, DiffusionConfig, FlowConfig, SampleConfig, TrainConfig, model_preset
from ledit_jax.errors import ConfigError


class Arm(NamedTuple):
    """What its training differs in from the other arms'."""

    family: str
    num_steps: int
    learning_rate: float


_BASE, _LEDIT = Arm("DiT", 4_000, 1e-3), Arm("LEDiT", 3_000, 5e-4)
_BY_DIFFUSION = {"base": _BASE, "ledit": _LEDIT}
_BY_FLOW = {"flow-base": _BASE, "flow": _LEDIT}
ARMS = _BY_DIFFUSION | _BY_FLOW


def get_config(arm: str = "ledit"):
    """arm: one of ARMS, see above."""
    if arm not in ARMS:
        raise ConfigError(f"configs/digits.py:{arm} is unknown: use one of {', '.join(ARMS)}")
    family, num_steps, learning_rate = ARMS[arm]
    # Unrolled and in float32: on CPU that is the faster way.
    model = model_preset(f"{family}-S/4", depth=6, width=96, num_heads=4, num_classes=10, scan_layers=False)
    data = DataConfig(source="digits", image_height=16, image_width=16, image_channels=1, flip=False)
    train = TrainConfig(
        num_steps=num_steps,
        batch_size=64,
        learning_rate=learning_rate,
        warmup_steps=100,
        decay_steps=1_000,
        grad_clip=1.0,
        ema_decay=0.998,
        dilation_probability=0.1 if family == "LEDiT" else 0.0,
        log_every=100,
        checkpoint_every=250,
        keep_last=2,
        keep_every=0,
        sample_every=1_000,
    )
    sample = SampleConfig(sampler="dpmpp", num_steps=25, cfg_scale=1.5 if arm in _BY_FLOW else 4.0)
    config = dataclasses.replace(Config(), model=model, data=data, train=train, sample=sample)
    return (by_flow(config) if arm in _BY_FLOW else config).to_config_dict()


def by_flow(config: Config) -> Config:
    """The same as a flow, drawn by 16 calls of `ab2`.

    The network is fed the times that a diffusion's is, so that training differs in nothing else.
    """
    return dataclasses.replace(
        config,
        diffusion=DiffusionConfig(objective="flow"),
        flow=FlowConfig(time_scale=1_000.0),
        sample=dataclasses.replace(config.sample, sampler="ab2", num_steps=16),
    )
