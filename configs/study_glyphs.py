"""The extrapolation study on printed digits: as configs/study_photos.py, with glyphs in the photographs' place.

  python -m experiments.study --config=configs/study_glyphs.py --workdir=runs/study_glyphs

Trained at 16x16 on 8x8 tokens, with the photographs' network and budget. Glyphs are drawn anew at every size, with
edges as sharp, and a real one is in one piece, so a table counts the pieces too. It has not been run
(docs/extrapolation.md).
"""

import dataclasses

from configs import study_photos


def get_config():
    study = study_photos.study()
    data = dataclasses.replace(study.experiment.data, source="glyphs", image_channels=1, flip=False)
    sample = dataclasses.replace(study.experiment.sample, cfg_scale=4.0)
    experiment = dataclasses.replace(study.experiment, data=data, sample=sample)
    return dataclasses.replace(study, experiment=experiment).to_config_dict()
