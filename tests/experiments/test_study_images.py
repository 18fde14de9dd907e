"""A study's workdir belongs to its images: with others in their place, nothing old is shown under a new name."""

import dataclasses
import zipfile

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from experiments.study.config import StudyConfig
from experiments.study.run import run_study
from ledit_jax.errors import DataError


def write_archive(path, seed):
    """A zip of two class folders of six images."""
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(path, "w") as archive:
        for name in [f"{kind}/{index}.png" for kind in "ab" for index in range(6)]:
            with archive.open(name, "w") as file:
                Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(file, "PNG")
    return path


def test_a_study_with_other_images_in_the_same_workdir_is_refused(tmp_path, monkeypatch):
    config = tiny_config(model=dict(num_classes=2), train=dict(dilation_probability=0.0))
    data = dataclasses.replace(config.data, source="image_folder", image_channels=3)
    experiment, images = dataclasses.replace(config, data=data), tmp_path / "photos.zip"
    fields = dict(methods=("ledit",), sizes=("8x8",), steps=1, per_class=2, judge_steps=1)

    def start():
        study = StudyConfig(experiment=experiment, images=str(images), **fields)
        run_study(StudyConfig.from_dict(dataclasses.asdict(study)), tmp_path / "work")

    begun = []

    def stop(config, folder):
        begun.append(folder)
        raise InterruptedError

    monkeypatch.setattr("experiments.study.run.make_reference", stop)
    write_archive(images, 0)
    for _ in range(2):  # the same images go on
        with pytest.raises(InterruptedError):
            start()
    assert len(begun) == 2
    write_archive(images, 1)
    with pytest.raises(DataError, match="photos.zip are not those that .*work/images was made of: give the same"):
        start()
    assert len(begun) == 2
