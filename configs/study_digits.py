"""The extrapolation study on handwritten digits: trained at 16x16, drawn at up to 64x64 (see docs/extrapolation.md).

  python -m experiments.study --config=configs/study_digits.py --workdir=runs/study_digits

The recipe of configs/digits.py: 4,000 steps of a common DiT, then 3,000 of each arm from that DiT's weights, as in the
paper's main table. 17 methods on 12 arms; --config.methods chooses some. At 11.7 steps/s (two quiet cores) the base
takes 6 minutes and each arm 4, and then each method a minute of sampling. Results are in docs/extrapolation.md.

:flow behind the file's name trains all of them as flows; its arm `ledit` is the shipped checkpoint.
"""

from configs import digits
from experiments.study.config import StudyConfig
from ledit_jax.config import Config
from ledit_jax.errors import ConfigError

METHODS = (
    *("dit", "learnable", "rope", "ntk", "yarn", "riflex", "dype-ntk", "dype-yarn", "rpe2d", "lookhere"),
    *("nope", "nope-causal", "nope-conv", "ledit", "ledit-scan-d_inclusive", "ledit-depthwise", "ledit-refined"),
)


PROCESSES = {"diffusion": "ledit", "flow": "flow"}
"""The arm of configs/digits.py that learns by it."""


def study(process: str = "diffusion") -> StudyConfig:
    """The study, for others to vary."""
    if process not in PROCESSES:
        raise ConfigError(f"configs/study_digits.py:{process} is unknown: use {', '.join(PROCESSES)}")
    experiment = Config.from_dict(digits.get_config(PROCESSES[process]).to_dict())
    return StudyConfig(
        experiment=experiment,
        methods=METHODS,
        sizes=("16x16", "24x24", "32x32", "16x32", "32x16", "64x64"),
        steps=digits.ARMS["ledit"].num_steps,
        base_steps=digits.ARMS["base"].num_steps,
        base_learning_rate=digits.ARMS["base"].learning_rate,
        per_class=10,
    )


def get_config(process: str = "diffusion"):
    return study(process).to_config_dict()
