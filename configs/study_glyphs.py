"""The extrapolation study on printed digits: as configs/study_photos.py, with glyphs in the photographs' place.

  python -m experiments.study --config=configs/study_glyphs.py --workdir=runs/study_glyphs

Trained at 16x16 on 8x8 tokens, with the photographs' network and budget. Glyphs are drawn anew at every size, with
edges as sharp, and a real one is in one piece, so a table counts the pieces too. :flow is a smaller network that learns
a flow from scratch, 3,000 steps, and the one of them that has been run (docs/extrapolation.md).
"""

import dataclasses

from configs import study_photos


def get_config(machine: str = "cpu"):
    study = study_photos.study(machine)
    data = dataclasses.replace(study.experiment.data, source="glyphs", image_channels=1, flip=False)
    sample = dataclasses.replace(study.experiment.sample, cfg_scale=4.0)
    experiment = dataclasses.replace(study.experiment, data=data, sample=sample)
    steps = 3_000 if machine == "flow" else study.steps
    return dataclasses.replace(study, experiment=experiment, steps=steps).to_config_dict()
