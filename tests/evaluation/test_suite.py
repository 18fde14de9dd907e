"""From images to the five numbers: features in pieces, stored statistics, warnings, what devices may not change."""

import dataclasses
import logging

import numpy as np
import pytest
import scipy.linalg
import torch
from evaluation.toy_inception import ToyInception
from launch import run_on_eight_devices
from oracles import fidelity
from PIL import Image

from ledit_jax.convert.inception import load_inception
from ledit_jax.errors import ConfigError, DataError, OutputError
from ledit_jax.evaluation import pieces as pieces_module
from ledit_jax.evaluation import statistics as statistics_module
from ledit_jax.evaluation.features import FeatureExtractor
from ledit_jax.evaluation.neighbours import precision_recall
from ledit_jax.evaluation.statistics import SetStatistics, measure_set, save_statistics
from ledit_jax.evaluation.suite import Metrics, evaluate, metrics_table


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor(ToyInception(), batch_size=4)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two npz of 11 and 9 images of different brightness."""
    return write_sets(tmp_path_factory.mktemp("sets"), 11, 9)


def write_sets(folder, *counts):
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(low, high, (count, 8, 8, 3), dtype=np.uint8)
        for count, (low, high) in zip(counts, ((0, 200), (40, 256)), strict=True)
    ]
    for name, array in zip("ab", arrays, strict=True):
        np.savez(folder / f"{name}.npz", array)
    return folder / "a.npz", folder / "b.npz", arrays


@pytest.fixture(scope="module")
def measured(sets, extractor):
    return [measure_set(str(path), lambda: extractor) for path in sets[:2]]


def test_all_five_equal_adms_definitions_on_torch_fidelitys_features(tmp_path):
    """Nothing of ours but the code under test: someone else's forward pass and neighbours, scipy's root."""
    state, (*paths, images) = fidelity.random_inception(), write_sets(tmp_path, 6, 4)
    (x, xs, logits), (y, ys, _) = (fidelity.inception_features(state, array) for array in images)
    xs, ys = (s[..., :7].reshape(len(s), -1) for s in (xs, ys))

    def frechet(a, b):
        a, b = a.astype(np.float64), b.astype(np.float64)
        # In the span of both sets, where covariances of so few samples are at least small.
        basis = scipy.linalg.orth(np.concatenate([a - a.mean(0), b - b.mean(0)]).T)
        s, t = np.cov(a @ basis, rowvar=False), np.cov(b @ basis, rowvar=False)
        root = scipy.linalg.sqrtm(s).real
        trace = np.trace(scipy.linalg.sqrtm(root @ t @ root).real)
        return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(s) + np.trace(t) - 2 * trace

    torch.save(state, tmp_path / "x.pth")
    extractor = FeatureExtractor(load_inception(tmp_path / "x.pth"), batch_size=2)
    metrics = evaluate(*(measure_set(str(path), lambda: extractor) for path in paths), extractor.class_weights)
    assert metrics.fid == pytest.approx(frechet(x, y), rel=1e-3)
    assert metrics.sfid == pytest.approx(frechet(xs, ys), rel=1e-3)
    score = fidelity.inception_score(logits, splits=1)
    assert metrics.inception_score - 1 == pytest.approx(score - 1, rel=1e-3) and score > 1.0005
    assert (metrics.precision, metrics.recall) == pytest.approx(fidelity.precision_recall(y, x), abs=1e-6)


def test_a_set_against_itself(measured, extractor):
    metrics = evaluate(measured[0], measured[0], extractor.class_weights)
    assert metrics.fid == pytest.approx(0, abs=1e-6) and metrics.sfid == pytest.approx(0, abs=1e-6)
    assert metrics.precision == metrics.recall == 1


def test_batch_size_does_not_matter(measured, sets, extractor):
    other = FeatureExtractor(ToyInception(), batch_size=5)
    again = [measure_set(str(path), lambda: other) for path in sets[:2]]
    assert [s.num_samples for s in again] == [11, 9]
    for one, two in zip(measured, again, strict=True):
        np.testing.assert_allclose(two.features, one.features, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(two.spatial[0], one.spatial[0], rtol=1e-4, atol=1e-4)
    one, two = (dataclasses.astuple(evaluate(*s, extractor.class_weights))[:5] for s in (measured, again))
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_eight_devices_give_the_same(measured, sets, extractor, tmp_path):
    """In a process of its own, since the number of CPU devices is fixed when jax starts."""
    script = (
        "import sys, dataclasses, jax, numpy as np\n"
        "from evaluation.toy_inception import ToyInception\n"
        "from ledit_jax.evaluation.features import FeatureExtractor\n"
        "from ledit_jax.evaluation.neighbours import precision_recall\n"
        "from ledit_jax.evaluation.statistics import measure_set\n"
        "from ledit_jax.evaluation.suite import evaluate\n"
        "extractor = FeatureExtractor(ToyInception(), batch_size=1)\n"
        "sets = [measure_set(name, lambda: extractor) for name in sys.argv[1:3]]\n"
        "print(jax.local_device_count(), *dataclasses.astuple(evaluate(*sets, extractor.class_weights))[:5])\n"
        "print(*precision_recall(*np.load(sys.argv[3]).values(), 20))\n"  # in more blocks than there are devices
    )
    rng = np.random.default_rng(0)
    reference, samples = (rng.normal(size=(count, 12)).astype(np.float32) for count in (130, 90))
    np.savez(tmp_path / "x.npz", reference, samples)
    figures, shares = run_on_eight_devices(script, tmp_path, *sets[:2], tmp_path / "x.npz").splitlines()
    count, *figures = map(float, figures.split())
    assert count == 8
    one = dataclasses.astuple(evaluate(*measured, extractor.class_weights))[:5]
    np.testing.assert_allclose(figures, one, rtol=1e-4)
    assert tuple(map(float, shares.split())) == precision_recall(reference, samples, 20)


def test_features_are_kept_and_gone_on_with(sets, extractor, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces_module, "PIECE", 3)
    calls = []

    class Counting(FeatureExtractor):
        def __init__(self):
            self.__dict__ = extractor.__dict__

        def __call__(self, images):
            calls.append(len(images))
            if len(calls) == 2 and stop:
                raise KeyboardInterrupt
            return super().__call__(images)

    stop = True
    with pytest.raises(KeyboardInterrupt):
        measure_set(str(sets[0]), Counting, folder=tmp_path / "kept")
    stop = False
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["000000.npz", "set.json"]
    resumed = measure_set(str(sets[0]), Counting, folder=tmp_path / "kept")
    assert calls == [4, 4, 4, 4]  # the first batch made one piece; images 3 to 10 follow
    np.testing.assert_allclose(resumed.features, measured[0].features, rtol=1e-4, atol=1e-4)
    calls.clear()
    again = measure_set(str(sets[0]), Counting, folder=tmp_path / "kept")
    assert not calls, "what is there was computed again"
    np.testing.assert_array_equal(again.pool[1], resumed.pool[1])
    with pytest.raises(OutputError, match=r"begun with other settings \(name=.*a.npz there, .*b.npz here; count=11"):
        measure_set(str(sets[1]), Counting, folder=tmp_path / "kept")
    piece = tmp_path / "kept" / "000001.npz"
    piece.write_bytes(piece.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"000001.npz is damaged"):
        measure_set(str(sets[0]), Counting, folder=tmp_path / "kept")


def test_saved_statistics_give_the_same_figures_and_need_no_network(measured, extractor, tmp_path):
    save_statistics(measured[1], tmp_path / "ref.npz")
    reference = measure_set(str(tmp_path / "ref.npz"), lambda: pytest.fail("the network was asked for"))
    assert reference.num_samples == 9 and reference.size == (8, 8)
    assert evaluate(measured[0], reference, extractor.class_weights) == evaluate(*measured, extractor.class_weights)


def test_adms_reference_statistics_of_all_and_images_of_some(measured, sets, extractor, tmp_path):
    """Means and covariances are the stored ones, and neighbours come from the images in the file."""
    (mu, sigma), (mu_s, sigma_s) = measured[0].pool, measured[0].spatial
    np.savez(tmp_path / "r.npz", sets[2][1], mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s)
    reference = measure_set(str(tmp_path / "r.npz"), lambda: extractor, is_reference=True)
    np.testing.assert_array_equal(reference.pool[0], mu)
    np.testing.assert_array_equal(reference.spatial[1], sigma_s)
    np.testing.assert_array_equal(reference.features, measured[1].features)


def test_a_large_folder_of_reference_keeps_an_even_spread_of_features(extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(statistics_module, "MAX_NEIGHBOURS", 4)
    monkeypatch.setattr(pieces_module, "PIECE", 4)
    for index, image in enumerate(np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    whole = measure_set(str(tmp_path), lambda: extractor)
    assert len(whole.features) == whole.num_samples == 10
    spread = measure_set(str(tmp_path), lambda: extractor, is_reference=True)
    np.testing.assert_array_equal(spread.features, whole.features[[0, 3, 6, 9]])
    np.testing.assert_array_equal(spread.pool[1], whole.pool[1])


ENOUGH = 5_000  # a split of the Inception Score, and more than there are features


def gaussian(count, size=(8, 8), features=True):
    rng = np.random.default_rng(0)
    moments = [(np.zeros(d), np.eye(d)) for d in (5, 4)]
    return SetStatistics(
        "x", count, size, *moments, rng.normal(size=(count, 5)).astype(np.float32) if features else None
    )


class TestWarnings:
    @pytest.fixture
    def log(self, caplog):
        caplog.set_level(logging.WARNING, "ledit_jax")
        return caplog

    def test_few_samples(self, log):
        evaluate(gaussian(300), gaussian(ENOUGH), None)
        assert (
            "the samples are 300 images, no more than the 2048 features: FID and sFID come out far too high" in log.text
        )
        assert "300 images, less than a split (5000) of the Inception Score" in log.text

    def test_far_too_few(self, log):
        metrics = evaluate(gaussian(3), gaussian(ENOUGH), None)
        assert metrics.precision is None and metrics.recall is None
        assert "the samples are 3 images: no precision and recall, which need 4 or more" in log.text

    def test_enough(self, log):
        evaluate(gaussian(ENOUGH), gaussian(ENOUGH), None)
        assert not log.text

    def test_sizes_differ(self, log):
        evaluate(gaussian(ENOUGH, (64, 48)), gaussian(ENOUGH), None)
        assert "samples are 64x48 and the reference 8x8 (height x width): both are resized to 299x299" in log.text

    def test_statistics_alone(self, log):
        metrics = evaluate(gaussian(ENOUGH), gaussian(ENOUGH, features=False), np.eye(5, dtype=np.float32))
        assert metrics.precision is None and metrics.fid is not None and metrics.inception_score is not None
        assert "statistics alone: no precision and recall" in log.text


def test_one_image_has_no_covariance(extractor, tmp_path):
    np.savez(tmp_path / "x.npz", np.zeros((1, 8, 8, 3), np.uint8))
    one = measure_set(str(tmp_path / "x.npz"), lambda: extractor)
    assert one.pool is None and evaluate(one, gaussian(ENOUGH), None).fid is None
    with pytest.raises(ConfigError, match="must be two or more images"):
        save_statistics(one, tmp_path / "ref.npz")


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(mu=np.full(2048, np.nan), sigma=np.eye(2048)), "mu holds values that are not finite"),
        (dict(mu=np.zeros(2048)), "sigma is missing"),
        (dict(mu=np.zeros(64), sigma=np.eye(64)), r"mu is float64 \[64\], and \[2048\] is needed"),
    ],
)
def test_bad_statistics(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=message):
        measure_set(str(tmp_path / "x.npz"), lambda: pytest.fail("the network was asked for"))


def test_table_in_the_papers_order():
    table = metrics_table({"a": Metrics(2.276, 4.6, 278.24, 0.83, 0.57), "b": Metrics(1.0, None, None, None, None)})
    assert "2.28  | 4.60   | 278.24 | 0.8300" in table and table.count(" - ") >= 4
