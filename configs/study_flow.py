"""LEDiT by flow beside LEDiT by diffusion, on handwritten digits, at few network calls (see docs/flow.md).

  python -m experiments.study --config=configs/study_flow.py --workdir=runs/study_flow

The recipe of configs/study_digits.py: 4,000 steps of a DiT, then 3,000 of LEDiT from its weights. Each process has a
DiT of its own, and `ledit-flow-dit` is a flow from the diffusion's. Two DiTs and four arms are 20,000 steps: half
an hour at 11.7 steps/s (two quiet cores; MeanFlow's steps cost more), and the images take as long. All have the
inclusive scan, with which the tables were made; the digits' own is scan d.
"""

import dataclasses

from configs import study_digits
from experiments.study.config import StudyConfig

CALLS = (4, 8, 16, 25, 50)
DRAWN = (
    *(("ledit", sampler) for sampler in ("ddpm", "ddim", "dpmpp")),
    *(("ledit-flow", sampler) for sampler in ("euler", "heun", "ab2", "dpmpp")),
    *((method, "ab2") for method in ("ledit-flow-shift", "ledit-flow-dit")),
)
METHODS = (
    *(f"{method}@{sampler}-{calls}" for method, sampler in DRAWN for calls in CALLS),
    *(f"ledit-flow@euler-{calls}" for calls in (1, 2)),
    *(f"ledit-meanflow@meanflow-{calls}" for calls in (1, 2, 4)),
)


def study() -> StudyConfig:
    """The study, for others to vary."""
    digits = study_digits.study()
    inclusive = digits.experiment.replaced("model", scan="d_inclusive")
    return dataclasses.replace(digits, experiment=inclusive, methods=METHODS, sizes=("16x16", "24x24", "32x32"))


def get_config():
    return study().to_config_dict()
