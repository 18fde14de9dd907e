"""The extrapolation study on coloured photographs: trained at 16x16 and 8x8 tokens, held against real 24x24 and 32x32.

  python -m experiments.study --config=configs/study_photos.py --workdir=runs/study_photos \\
      --config.images=PHOTOS.zip

PHOTOS is a zip or a folder, with a folder of images for each of ten classes, 32 pixels or more a side, such as those of
CIFAR-10. Every sixth image is held out. 20,000 steps of a common DiT, then as many of each arm: 1.9 million parameters,
about 3 steps/s on two quiet cores, so two hours an arm. Two methods had 5,000 steps of it (docs/extrapolation.md).

- :flow is the budget of an evening: the network of configs/glyphs.py, 0.8 million parameters, learns a flow from
  scratch, 5,000 steps at 4 a second on one core. A flow's loss weighs what is made of pure noise, and that is where a
  layout is decided. LEDiT knows where its tokens are after 12,000, so --config.steps=20000 shows it better.
- :gpu is a larger network with batches of 256 in bfloat16, for one GPU. It has not been run.
"""

import dataclasses

from configs import glyphs
from experiments.study.config import StudyConfig
from ledit_jax.config import Config, SampleConfig, model_preset
from ledit_jax.errors import ConfigError

METHODS = (
    *("dit", "learnable", "rope", "ntk", "yarn", "riflex", "dype-ntk", "dype-yarn", "rpe2d", "lookhere"),
    *("nope", "nope-causal", "nope-conv", "ledit", "ledit-scan-d_inclusive", "ledit-refined"),
)
UNSCALED = tuple(
    f"{name}-unscaled"
    for name in (
        "dit",
        "learnable",
        "rope",
        "ntk",
        "riflex",
        "dype-ntk",
        "rpe2d",
        "nope-conv",
        "ledit",
        "ledit-refined",
    )
)
"""Once more without attention scaling; YaRN and DyPE's YaRN are without it already."""
FLOW_METHODS = (
    "ledit-xavier-norm",
    "ledit-refined",
    "dit",
    "learnable",
    "rope",
    "riflex",
    "yarn",
    "rpe2d",
    "nope-conv",
)
SIZES = {
    "cpu": dict(depth=6, width=128, num_heads=4, scan_layers=False),
    "gpu": dict(depth=12, width=384, num_heads=6, dtype="bfloat16"),
}


def study(machine: str = "cpu") -> StudyConfig:
    """The study, for others to vary."""
    if machine not in (*SIZES, "flow"):
        raise ConfigError(f"configs/study_photos.py:{machine} is unknown: use {', '.join(SIZES)}, flow")
    flow = machine == "flow"
    return StudyConfig(
        experiment=_by_flow() if flow else _by_diffusion(machine),
        methods=FLOW_METHODS if flow else METHODS + UNSCALED,
        sizes=("16x16", "24x24", "32x32", "16x32"),
        steps=5_000 if flow else 20_000,
        base_steps=0 if flow else 20_000,
        base_learning_rate=1e-3,
        per_class=50,
    )


def _by_flow() -> Config:
    experiment = glyphs.experiment().replaced("data", source="image_folder", image_channels=3, flip=True)
    return experiment.replaced("sample", cfg_scale=1.5)


def _by_diffusion(machine: str) -> Config:
    """With the flow's data and schedule, at another rate."""
    gpu, flow = machine == "gpu", _by_flow()
    return Config(
        model=model_preset("LEDiT-S/2", num_classes=10, **SIZES[machine]),
        data=dataclasses.replace(flow.data, num_workers=8 if gpu else 0),
        train=dataclasses.replace(flow.train, batch_size=256 if gpu else 64, learning_rate=5e-4, keep_every=5_000),
        sample=SampleConfig(sampler="dpmpp", num_steps=25, cfg_scale=1.5),
    )


def get_config(machine: str = "cpu"):
    return study(machine).to_config_dict()
