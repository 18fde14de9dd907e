"""The extrapolation study on solid shapes: as configs/study_digits.py, with drawn shapes in the digits' place.

  python -m experiments.study --config=configs/study_shapes.py --workdir=runs/study_shapes

Shapes are drawn exactly at every size, and a real image has exactly one, so a table counts the objects too. The main
six arms only. At 10 steps/s (two quiet cores) 43 minutes of training, and then a minute of sampling for each of the
nine methods. Results are in docs/extrapolation.md.
"""

import dataclasses

from configs import study_digits

METHODS = ("dit", "rope", "ntk", "yarn", "riflex", "nope", "nope-causal", "nope-conv", "ledit")


def get_config():
    study = study_digits.study()
    data = dataclasses.replace(study.experiment.data, source="shapes")
    experiment = dataclasses.replace(study.experiment, data=data)
    # Twice the digits' steps of the common DiT: a shape is at another place and angle in every image.
    study = dataclasses.replace(study, experiment=experiment, methods=METHODS, base_steps=8_000)
    return study.to_config_dict()
