"""The judge reads real images at every size at its own resolution, and sees what goes wrong beyond the trained size."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from script_runs import run

from experiments.judges.distortions import DISTORTIONS
from experiments.judges.judge import Judge, JudgeRecipe
from experiments.study.images import Samples, real_images
from experiments.study.judges import SHIPPED, drawn_judge, drawn_recipe
from experiments.study.reference import Reference
from experiments.study.sensitivity import sensitivity, sensitivity_table
from ledit_jax.errors import ConfigError, DataError
from ledit_jax.evaluation.frechet import frechet_distance
from ledit_jax.files.readers import read_json

SOURCES = ("digits", "glyphs")
"""Those with a shipped judge."""
SEEN = {"digits": 6.0, "glyphs": 9.0}
"""A distortion is seen if it takes images so many times as far from real ones as other real ones are: three times what
lies between the nearest and the farthest of random halves of real images."""
DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("source", SOURCES)
def test_a_shipped_judge_is_the_recipes_and_small(source):
    assert drawn_judge(source).recipe == drawn_recipe(source)
    assert (SHIPPED / f"{source}.npz").stat().st_size < 300_000


def first_images(source, size, split):
    return real_images(source, *size, split, 300)


@pytest.mark.parametrize(("source", "size"), [("digits", (16, 32)), ("glyphs", (24, 24))])
def test_held_out_images_are_read_and_every_distortion_is_seen(source, size):
    judge, test = drawn_judge(source), first_images(source, size, "test")
    read = judge.read(test.images)
    assert read.accuracy(test.labels) > 0.95 and read.accuracy((test.labels + 1) % 10) < 0.05
    reference = Reference(lambda h, w, split: first_images(source, (h, w), split), lambda: judge, counts_objects=False)
    check_seen(sensitivity(reference, size), SEEN[source])
    with pytest.raises(ConfigError, match="size 16x15 has an odd side"):
        sensitivity(reference, (16, 15))
    # Real images are as far from others as chance has it.
    rng, distances = np.random.default_rng(0), []
    for _ in range(4):
        order = rng.permutation(len(test.labels))
        halves = (dataclasses.replace(read, features=read.features[part]) for part in np.array_split(order, 2))
        first, second = (half.statistics for half in halves)
        distances.append(frechet_distance(*first, *second))
    assert max(distances) < SEEN[source] / 3 * min(distances)


def check_seen(seen, least):
    assert seen.keys() == {"real", *DISTORTIONS}
    for name in DISTORTIONS:
        _, whole, patches, _ = seen[name]
        assert max(whole, patches) > least, (name, seen[name])
    check_layout(seen)


def check_layout(seen):
    """What is out of place shows in the layout, and texture does not."""
    assert min(seen[name][3] for name in ("tiled", "in a corner", "rolled")) > 11
    assert max(seen[name][3] for name in ("streaked", "blurred")) < 8


@pytest.mark.parametrize("name", [*SOURCES, "photos"])
def test_the_pages_table_is_that_of_the_file_beside_it_and_has_nothing_unseen(name):
    kept = read_json(DOCS / "extrapolation" / f"judge-{name}.json")
    assert sensitivity_table(kept["source"], kept["figures"]) in (DOCS / "extrapolation" / "judge.md").read_text()
    assert list(kept["figures"]) == ["16x16", "24x24", "32x32", "16x32"]
    for seen in kept["figures"].values():
        if name in SOURCES:
            check_seen(seen, SEEN[name])
            assert seen["real"][0] > 0.95
        else:
            check_layout(seen)
            assert all(max(seen[distortion][1:]) > 3 for distortion in DISTORTIONS)
            assert seen["real"][0] > 0.5


def test_sizes_that_it_was_not_trained_on_are_read_too():
    test = first_images("digits", (40, 24), "test")
    assert drawn_judge("digits").accuracy(test.images, test.labels) > 0.9


def test_noise_is_read_at_random_and_blank_images_are_finite():
    rng = np.random.default_rng(0)
    noise, labels = rng.integers(0, 256, (200, 16, 16, 1), np.uint8), np.arange(200) % 10
    assert drawn_judge("digits").accuracy(noise, labels) < 0.2
    blank = np.stack([np.zeros((16, 16, 1), np.uint8), np.full((16, 16, 1), 255, np.uint8)])
    read = drawn_judge("digits").read(blank)
    assert np.isfinite(read.features).all() and np.isfinite(read.patches).all()
    assert read.patches.shape == (2 * 4 * 4, 32) and read.features.shape == (2, 16 + 32 + 48 + 64)


def test_colour_is_read_as_grey_and_other_channels_are_refused():
    images = first_images("digits", (16, 16), "test").images[:20]
    judge = drawn_judge("digits")
    np.testing.assert_array_equal(judge.read(images.repeat(3, axis=-1)).features, judge.read(images).features)
    with pytest.raises(ConfigError, match="images of 2 channels"):
        judge.read(np.zeros((1, 16, 16, 2), np.uint8))


def bars(count: int, height: int, width: int, seed: int) -> Samples:
    """Class 0 has bars that lie, class 1 bars that stand; colour and place say nothing."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % 2
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(12 * (x / width if label else y / height) + rng.uniform(0, 6)) for label in labels]
    colors = rng.uniform(60, 120, (count, 1, 1, 3))
    return Samples((127 + np.stack(waves)[..., None] * colors).astype(np.uint8), labels)


RECIPE = JudgeRecipe("bars", ((16, 16),), 2, channels=3, flip=True, steps=30, widths=(8, 8, 8))


def test_training_repeats_and_a_file_keeps_the_very_judge(tmp_path):
    sets = [(s.images, s.labels) for s in (bars(40, *size, seed=0) for size in RECIPE.sizes)]
    judge, again = (Judge.train(RECIPE, sets) for _ in range(2))
    new = bars(40, 16, 16, seed=1)
    read = judge.read(new.images)
    assert read.accuracy(new.labels) > 0.9
    assert np.array_equal(read.features, again.read(new.images).features)
    judge.save(tmp_path / "judge.npz")
    loaded = Judge.load(tmp_path / "judge.npz", RECIPE).read(new.images)
    assert np.array_equal(loaded.features, read.features) and np.array_equal(loaded.patches, read.patches)

    with pytest.raises(DataError, match="was made by another recipe"):
        Judge.load(tmp_path / "judge.npz", dataclasses.replace(RECIPE, seed=1))
    with pytest.raises(DataError, match="does not exist"):
        Judge.load(tmp_path / "none.npz", RECIPE)
    with pytest.raises(ConfigError, match="num_classes=1 is too few"):
        Judge.train(dataclasses.replace(RECIPE, num_classes=1), sets)


def test_the_command_shows_what_a_studys_figures_see(tmp_path):
    flags = ["--config=configs/study_digits.py:flow", "--config.methods=dit,", "--config.sizes='16x16',"]
    result = run("experiments/study/sensitivity.py", *flags, f"--workdir={tmp_path}")
    assert result.returncode == 0, result.stderr
    kept = read_json(tmp_path / "sensitivity.json")
    assert sensitivity_table("digits", kept["figures"]) in result.stdout and list(kept["figures"]) == ["16x16"]
    # The page's table of digits is that of this command.
    page = read_json(DOCS / "extrapolation" / "judge-digits.json")["figures"]["16x16"]
    for name, seen in kept["figures"]["16x16"].items():
        np.testing.assert_allclose(seen, page[name], rtol=0.02, atol=0.01)
