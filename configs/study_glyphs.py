"""The extrapolation study on printed digits: trained at 16x16 on 8x8 tokens, drawn at 24x24, 32x32 and 16x32.

  python -m experiments.study --config=configs/study_glyphs.py --workdir=runs/study_glyphs

The recipe of configs/glyphs.py, from scratch: 12,000 steps of each arm, 50 minutes of one core. Glyphs are drawn anew
at every size, with edges as sharp, and a real one is in one piece, so a table counts the pieces too. The arm
`ledit-xavier-norm` is the demo's checkpoint. Results are in docs/extrapolation.md.
"""

from configs import glyphs
from experiments.study.config import StudyConfig

METHODS = ("ledit-xavier-norm", "dit", "learnable", "rope", "riflex", "yarn")


def study() -> StudyConfig:
    """The study, for others to vary."""
    experiment = glyphs.experiment()
    return StudyConfig(
        experiment=experiment,
        methods=METHODS,
        sizes=("16x16", "24x24", "32x32", "16x32"),
        steps=experiment.train.num_steps,
        per_class=50,
    )


def get_config():
    return study().to_config_dict()
