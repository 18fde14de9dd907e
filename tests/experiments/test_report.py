"""The report tells a model that draws real images from one that draws noise or the wrong class."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from experiments import report
from experiments.report import (
    Row,
    Samples,
    comparison_table,
    count_objects,
    draw_samples,
    measure,
    real_images,
    relative_size,
    report_table,
    train_judge,
    write_report,
)
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.frechet import frechet_distance, gaussian_statistics

SIZES = [(16, 16), (32, 32), (16, 32)]
DIGITS = [str(digit) for digit in range(10)]


def _draw_real(source, shift=0):
    """A perfect model: every image asked for is a real held-out one, of the class `shift` further."""

    def draw(height, width, labels, seed, progress_label):
        real, rng = real_images(source, height, width, "test"), np.random.default_rng(seed)
        places = [np.flatnonzero(real.labels == (label + shift) % 10) for label in labels]
        return real.images[[rng.choice(p) for p in places]]

    return draw


def _draw_noise(height, width, labels, seed, progress_label):
    return np.random.default_rng(seed).integers(0, 256, (len(labels), height, width, 1), np.uint8)


@pytest.fixture(scope="module")
def judge():
    return train_judge("digits")


def _measure(draw, judge):
    samples = draw_samples(draw, SIZES, num_classes=10, per_class=12, seed=0)
    return measure(samples, judge, "digits", trained_size=(16, 16), granularity=2), samples


@pytest.fixture(scope="module")
def real_rows(judge):
    return _measure(_draw_real("digits"), judge)


def test_real_images_score_high(real_rows):
    rows, _ = real_rows
    assert [(r.height, r.width, r.tokens, r.relative) for r in rows] == [
        (16, 16, 64, "1x"),
        (32, 32, 256, "2x"),
        (16, 32, 128, "2:1"),
    ]
    for row in rows:
        assert row.num_samples == 120 and row.objects is None
        assert row.accuracy >= 0.95 and row.real_accuracy >= 0.95
        assert 0 < row.frechet < 4 * row.real_frechet
        assert min(row.precision, row.real_precision) > 0.6 and min(row.recall, row.real_recall) > 0.3


def test_distances_are_to_training_images_and_the_floor_is_of_as_many_held_out_ones(judge, real_rows):
    rng = np.random.default_rng(0)
    for row, samples in zip(*real_rows, strict=True):
        train, test = (judge.features(real_images("digits", *samples.size, s).images) for s in ("train", "test"))
        reference = gaussian_statistics(train)
        drawn = gaussian_statistics(judge.features(samples.images))
        assert row.frechet == pytest.approx(frechet_distance(*drawn, *reference))
        subsets = [test[rng.permutation(len(test))[:120]] for _ in range(5)]
        floors = [frechet_distance(*gaussian_statistics(subset), *reference) for subset in subsets]
        assert 0.6 * min(floors) < row.real_frechet < 1.5 * max(floors)


def test_noise_scores_low(judge, real_rows):
    for row, good in zip(_measure(_draw_noise, judge)[0], real_rows[0], strict=True):
        assert row.accuracy < 0.25
        assert row.frechet > 20 * good.frechet
        assert row.precision == row.recall == 0.0
        assert row.real_accuracy == good.real_accuracy and row.real_frechet == good.real_frechet


def test_wrong_classes_are_not_read_right_though_they_look_real(judge, real_rows):
    for row, good in zip(_measure(_draw_real("digits", shift=1), judge)[0], real_rows[0], strict=True):
        assert row.accuracy < 0.1
        assert row.frechet < 3 * good.frechet


def test_half_of_the_classes_missing_shows_in_the_distance(judge, real_rows):
    def draw(height, width, labels, seed, progress_label):
        return _draw_real("digits")(height, width, labels // 5 * 5, seed, progress_label)

    for row, good in zip(_measure(draw, judge)[0], real_rows[0], strict=True):
        assert row.frechet > 10 * good.frechet


def test_draw_gets_labels_in_rows_of_all_classes_and_a_progress_label():
    calls = []

    def draw(height, width, labels, seed, progress_label):
        calls.append((height, width, labels.tolist(), seed, progress_label))
        return np.zeros((len(labels), height, width, 3), np.uint8)

    samples = draw_samples(draw, [(8, 12), (4, 4)], num_classes=3, per_class=2, seed=5)
    assert calls == [(8, 12, [0, 1, 2] * 2, 5, "8x12"), (4, 4, [0, 1, 2] * 2, 5, "4x4")]
    assert [s.size for s in samples] == [(8, 12), (4, 4)]
    with pytest.raises(ConfigError, match=r"draw returned uint8 \(3, 8, 8, 1\) for 3 labels at 16x16"):
        draw_samples(lambda h, w, y, s, p: np.zeros((3, 8, 8, 1), np.uint8), [(16, 16)], 3, 1, 0)


def test_shapes_are_counted(monkeypatch):
    monkeypatch.setattr(report, "MAX_REAL", 100)
    monkeypatch.setattr(report, "JUDGE_SIZES", ((24, 24),))
    real_images.cache_clear()
    judge = train_judge("shapes")
    one = draw_samples(_draw_real("shapes"), [(24, 24)], 10, 3, 0)
    two = [Samples(np.concatenate([s.images, s.images], axis=2), s.labels) for s in one]
    rows = [measure(s, judge, "shapes", (16, 16), 2)[0] for s in (one, two)]
    real_images.cache_clear()
    assert [row.objects for row in rows] == [1.0, 2.0]


def test_objects_are_bright_regions_joined_over_corners():
    image = np.zeros((7, 7, 1), np.uint8)
    assert count_objects(image[None]) == 0
    image[1, 1], image[2, 2], image[3, 3], image[5:, 5:] = 255, 128, 255, 200
    assert scipy.ndimage.label(image[..., 0] > 127)[1] == 4  # over sides alone
    assert count_objects(image[None]) == 2
    image[2, 2] = 127  # half of full intensity is 127.5
    assert count_objects(np.stack([image, 0 * image]).repeat(3, axis=-1)) == 1.5


@pytest.mark.parametrize(
    "size, trained, expected",
    [
        ((16, 16), (16, 16), "1x"),
        ((24, 24), (16, 16), "1.5x"),
        ((32, 16), (16, 16), "1:2"),
        ((16, 32), (16, 16), "2:1"),
        ((32, 64), (16, 32), "2x"),
        ((512, 384), (256, 256), "3:4"),
        ((32, 32), (16, 32), "1:1"),
    ],
)
def test_relative_size(size, trained, expected):
    assert relative_size(size, trained) == expected


def test_source_without_any_size_is_refused():
    with pytest.raises(ConfigError, match=r"data\.source=tfds"):
        real_images("tfds", 16, 16, "test")


def _row(height, width, accuracy, objects=None):
    return Row(height, width, 64, "1x", 20, accuracy, 0.98, 1.5, 0.5, 0.7, 0.8, 0.2, 0.3, objects)


def test_tables_hold_the_figures():
    table = report_table([_row(16, 16, 0.5), _row(32, 32, 0.25)]).splitlines()
    cells = [cell.strip() for cell in table[2].split("|")[1:-1]]
    assert cells == ["16x16", "1x", "64", "50.0%", "98.0%", "1.50", "0.50", "70.0%", "80.0%", "20.0%", "30.0%"]
    assert len(table) == 4 and len({len(line) for line in table}) == 1 and "objects" not in table[0]
    assert report_table([_row(16, 16, 0.5, objects=1.25)]).splitlines()[2].endswith("| 1.25    |")


def test_comparison_has_methods_down_and_sizes_across():
    rows = [_row(16, 16, 0.5), _row(16, 32, 0.25)]
    table = comparison_table([("LEDiT", rows), ("DiT", [_row(16, 16, 0.1), _row(16, 32, 0.0)])]).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert cells[0] == ["method", "16x16 (1x)", "16x32 (1x)"]
    assert cells[2:] == [
        ["LEDiT", "50.0% (1.50)", "25.0% (1.50)"],
        ["DiT", "10.0% (1.50)", "0.0% (1.50)"],
        ["real held-out images", "98.0% (0.50)", "98.0% (0.50)"],
    ]
    with pytest.raises(ConfigError, match="of DiT are not those of LEDiT"):
        comparison_table([("LEDiT", rows), ("DiT", rows[:1])])


def test_report_on_disk_says_what_was_measured(tmp_path, real_rows, capsys):
    rows, samples = real_rows
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n')
    out = tmp_path / "report"
    write_report(rows, samples, out, DIGITS, {"LEDiT": tmp_path / "metrics.jsonl"})
    names = {"report.md", "report.json", "sheet.png", "loss.png"} | {f"samples-{h}x{w}.png" for h, w in SIZES}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads((out / "report.json").read_text()) == [dataclasses.asdict(row) for row in rows]
    table = report_table(rows)
    assert table in (out / "report.md").read_text() and table in capsys.readouterr().out
    for height, width in SIZES:  # ten columns of images, 96 pixels high
        with Image.open(out / f"samples-{height}x{width}.png") as page:
            assert page.width > 10 * width * (96 // height)
