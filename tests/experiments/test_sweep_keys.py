"""The sweep's figures belong to one network and one reference: with others of the same name they are made anew."""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from evaluation.toy_inception import ToyInception
from tiny import tiny_config

from experiments.sweep_case import measure_case
from ledit_jax.evaluation.features import FeatureExtractor
from ledit_jax.evaluation.statistics import measure_set
from ledit_jax.files import PieceFolder
from ledit_jax.sampling.recipe import Recipe

CASE = ((8, 8), 1.5)
PROMPTS = ["a cat", "", "a red bus", "two", "of", "Café"]


def write_images(path: Path, seed: int) -> Path:
    images = np.random.default_rng(seed).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(path, images, prompts=np.array(PROMPTS))
    return path


class Scorer:
    digest = "0123"

    def __call__(self, images, prompts, folder, progress):
        assert images.count == 6 and prompts == PROMPTS and folder.name == self.digest
        return np.linspace(20, 22, 6)


@pytest.fixture(scope="module")
def extractors():
    first, second = ToyInception(), ToyInception()
    second.kernel[...] = second.kernel[...] + jnp.float32(1e-3)
    return [FeatureExtractor(network, 6) for network in (first, second)]


def test_other_weights_and_a_replaced_reference_make_figures_anew(tmp_path, extractors):
    pieces = PieceFolder.open(tmp_path / "w", "settings.json", {"seed": 0}, pieces="*.npz")
    reference, measured_anew = tmp_path / "ref.npz", []

    def draw(case, out):
        measured_anew.append(case)
        if not out.is_file():
            write_images(out, 1)
        sample = tiny_config().sample
        return Recipe("c", 1, "ema", "id", None, None, "random", (0,), 6, 8, 8, 0, sample)

    def measure(extractor, scorer=None):
        measured = measure_set(str(reference), lambda: extractor, is_reference=True)
        return measure_case(CASE, pieces, draw, lambda: extractor, measured, scorer and (lambda: scorer))

    write_images(reference, 2)
    first = measure(extractors[0])
    assert measure(extractors[0]) == first and len(measured_anew) == 1
    others = [measure(extractors[1])]
    write_images(reference, 3)
    others.append(measure(extractors[1]))
    assert len({first.fid, *(other.fid for other in others)}) == 3 and len(measured_anew) == 3
    assert measure(extractors[1]) == others[1] and len(measured_anew) == 3
    figures = json.loads((tmp_path / "w" / "8x8-cfg1.5.json").read_text())
    assert figures["inception"] == {"digest": extractors[1].digest}
    scored = measure(extractors[1], Scorer())
    assert scored == replace(others[1], clip_score=21.0) and measure(extractors[1], Scorer()) == scored
    assert len(measured_anew) == 4
