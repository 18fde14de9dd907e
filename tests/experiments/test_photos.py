"""The study on photographs: how images are parted, and a study from a zip to its tables."""

import csv
import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from configs import study_glyphs, study_photos
from experiments.study import run as study_run
from experiments.study.config import StudyConfig
from experiments.study.judges import photo_judge
from experiments.study.photos import HELD_OUT_EVERY, real_photographs, split_images
from experiments.study.reference import prepare_images
from experiments.study.run import run_study
from experiments.theory.block_outputs import noisy_images
from ledit_jax.config import Config, DataConfig
from ledit_jax.errors import ConfigError, DataError

CLASSES = {"green": (30, 170, 40), "orange": (220, 130, 20), "violet": (120, 40, 190)}
PER_CLASS = 14
SIDE = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Class folders of noisy images, a colour for each class."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for name, color in CLASSES.items():
        (root / name).mkdir()
        for index in range(PER_CLASS):
            noisy = np.array(color) + rng.normal(0, 25, (SIDE, SIDE + index % 3, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / name / f"{index:02}.png")
    return root


@pytest.fixture(scope="module")
def archive(folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "photographs.zip"
    with zipfile.ZipFile(path, "w") as images:
        for file in sorted(folder.rglob("*.png")):
            images.write(file, file.relative_to(folder))
    return path


def _table(part: Path) -> list[tuple[str, str]]:
    """(class and file, label) of each row, with the images there to be read."""
    with open(part / "labels.csv", newline="") as stream:
        rows = [(row["file"], row["label"]) for row in csv.DictReader(stream)]
    assert all((part / file).is_file() for file, _ in rows)
    return [("/".join(Path(file).parts[-2:]), label) for file, label in rows]


def test_a_bad_image_in_a_zip_is_left_out_with_a_line(archive, tmp_path, caplog):
    path = tmp_path / "x.zip"
    path.write_bytes(archive.read_bytes())
    with zipfile.ZipFile(path, "a") as images:
        images.writestr("green/99.png", "no image")
    folder = split_images(path, tmp_path / "images")
    count = sum(len(real_photographs(folder, 3, 16, 16, part).labels) for part in ("train", "test"))
    assert count == len(CLASSES) * PER_CLASS
    assert "left out, since it cannot be read" in caplog.text and "99.png" in caplog.text


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_every_sixth_image_of_a_class_is_held_out(kind, folder, archive, tmp_path):
    source = {"folder": folder, "archive": archive}[kind]
    parted = split_images(source, tmp_path / "images")
    train, test = (_table(parted / part) for part in ("train", "test"))
    expected = [(f"{name}/{i:02}.png", str(label)) for label, name in enumerate(CLASSES) for i in (5, 11)]
    assert test == expected
    assert len(train) == 3 * (PER_CLASS - PER_CLASS // HELD_OUT_EVERY) and not set(train) & set(test)

    # What is there is kept, also when the source is gone.
    before = (parted / "train" / "labels.csv").stat().st_mtime_ns
    assert split_images(tmp_path / "gone.zip", parted) == parted
    assert (parted / "train" / "labels.csv").stat().st_mtime_ns == before


def test_images_that_cannot_be_parted_are_named(folder, tmp_path):
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="damaged.zip cannot be unpacked"):
        split_images(damaged, tmp_path / "a")
    few = tmp_path / "few"
    for name in ("one", "two"):
        (few / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(few / name / "only.png")
    with pytest.raises(DataError, match="class 0 has fewer than 6 images"):
        split_images(few, tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def tiny_study(images: Path, **fields) -> StudyConfig:
    config = tiny_config(model=dict(num_classes=3), train=dict(dilation_probability=0.0))
    data = dataclasses.replace(config.data, source="image_folder", image_channels=3, flip=True)
    defaults = dict(methods=("ledit",), sizes=("12x8",), steps=2, per_class=2, judge_steps=9)
    experiment = dataclasses.replace(config, data=data)
    study = StudyConfig(experiment=experiment, images=str(images), **(defaults | fields))
    return StudyConfig.from_dict(dataclasses.asdict(study))


def test_study_from_a_zip_to_its_tables(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(study_run, "draw_study", lambda *_: None)  # charts and sheets: tests/experiments/test_study.py
    cells = run_study(tiny_study(archive), tmp_path)
    assert [(c.size, c.error) for c in cells] == [((12, 8), "")]
    assert cells[0].figures.num_samples == 6 and cells[0].figures.objects is None
    with np.load(tmp_path / "samples" / "ledit" / "seed-0" / "12x8.npz") as arrays:
        assert arrays["images"].shape == (6, 12, 8, 3)
    table = (tmp_path / "table.md").read_text()
    assert "| LEDiT (real held-out images) | 12x8 (2:3)" in table
    # The judge was trained once, and is there for the next start.
    config, folder = prepare_images(tiny_study(archive), tmp_path)
    kept = photo_judge(config, folder, real=None)
    assert kept.recipe.sizes == ((8, 8), (12, 8)) and (kept.recipe.steps, kept.recipe.channels) == (9, 3)


def test_a_probe_sees_the_photographs_that_were_trained_on(archive, tmp_path):
    data = DataConfig(source="image_folder", path=str(split_images(archive, tmp_path / "images") / "train"))
    config = dataclasses.replace(Config(), data=dataclasses.replace(data, image_channels=3))
    x, timesteps, labels = noisy_images(config, 8, 12, 3, 0, seed=0)
    assert x.shape == (3, 8, 12, 3) and timesteps.tolist() == [0, 0, 0]
    # With next to no noise, the first channels' means are those of each class's colour.
    colors = np.array(list(CLASSES.values()))[np.asarray(labels)] / 127.5 - 1
    np.testing.assert_allclose(x.mean(axis=(1, 2)), colors, atol=0.1)


def test_the_studies_by_flow_are_valid(archive):
    photos, glyphs = study_photos.get_config("flow").to_dict(), study_glyphs.get_config().to_dict()
    assert (photos["steps"], glyphs["steps"]) == (5_000, 12_000)
    for values in (photos | {"images": str(archive)}, glyphs):
        study = StudyConfig.from_dict(values | {"methods": ["ledit-xavier-norm"], "sizes": ["16x16"]})
        assert study.experiment.diffusion.objective == "flow" and study.bases == ()
    with pytest.raises(ConfigError, match="study_photos.py:tpu is unknown: use cpu, gpu, flow"):
        study_photos.get_config("tpu")


def test_a_size_beyond_the_real_images_is_named_before_any_training(archive, tmp_path):
    with pytest.raises(ConfigError, match="size 24x24 is larger than the real images"):
        run_study(tiny_study(archive, sizes=("8x8", "24x24")), tmp_path)
    assert not (tmp_path / "weights").exists()
