"""The checkpoint in assets/digits still draws digits, through the whole path of sampling."""

from pathlib import Path

import numpy as np

from experiments.study.judges import drawn_judge
from ledit_jax import LEDiTPipeline

ASSET = Path(__file__).parents[2] / "assets" / "digits"


def test_a_judge_of_real_digits_reads_its_samples():
    """At the size it was trained on, with the sampler and the guidance of its config."""
    labels = np.tile(np.arange(10), 5)
    images = LEDiTPipeline.from_checkpoint(ASSET)(labels.tolist(), 16, 16)
    assert images.shape == (50, 16, 16, 1)
    judge = drawn_judge("digits")
    assert judge.accuracy(images, labels) >= 0.9
    assert judge.accuracy(images, (labels + 1) % 10) < 0.1
