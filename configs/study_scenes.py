"""The extrapolation study on scenes with captions: what is drawn at 24x24, 36x36 and 48x48 after training at 24x24.

  python -m experiments.study --config=configs/study_scenes.py --workdir=runs/study_scenes

The recipe of configs/scenes.py for MMDiT with sin/cos, RoPE with its extrapolations, and LEMMDiT, all from scratch with
one budget and seed. Captions are of combinations that training never sees. A judge that is not trained reads colour,
shape, place and number from each image (`experiments/judges/scenes.py`). Results are in docs/text_to_image.md.
"""

from configs import scenes
from experiments.study.config import StudyConfig

METHODS = (
    *("dit", "dit-unscaled", "rope", "rope-unscaled", "ntk", "riflex", "riflex-unscaled"),
    *("ledit-post-norm", "ledit-post-norm-unscaled"),
)


def study() -> StudyConfig:
    """The study, for others to vary."""
    experiment = scenes.experiment("lemmdit")
    return StudyConfig(
        experiment=experiment,
        methods=METHODS,
        sizes=("24x24", "36x36", "48x48"),
        steps=experiment.train.num_steps,
        per_class=100,
    )


def get_config():
    return study().to_config_dict()
