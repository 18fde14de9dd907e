"""Scenes: one index is one scene at every size, drawn exactly, with captions that say what is there."""

import pickle
from itertools import combinations

import numpy as np
import pytest

from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data import Source, make_source
from ledit_jax.data.scene_captions import COLOURS, COUNTS, PAIRS, SHAPES, Request
from ledit_jax.data.scenes import OUTLINES, SIDE, Scenes, _arrange, figure_coverage
from ledit_jax.errors import ConfigError
from ledit_jax.models.words import WORDS


def test_a_scene_is_the_same_at_every_size():
    """Reduced by averaging, the drawing at three times the size is the drawing at this size."""
    small, large = Scenes(24, 16, "train"), Scenes(72, 48, "train")
    for index in range(8):
        one, other = small[index], large[index]
        means = other["image"].reshape(24, 3, 16, 3, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(one["image"], means, atol=1)
        assert one["captions"] == other["captions"] and one["image"].max() == 255


def test_a_record_depends_on_split_and_index_alone():
    source = make_source(DataConfig(source="scenes", image_height=16, image_width=16, flip=False), AutoencoderConfig())
    assert isinstance(source, Source) and len(source) == 20_000
    first = [source[index] for index in (7, 3)]
    again = pickle.loads(pickle.dumps(Scenes(16, 16, "train", length=8)))
    for record, index in zip(first, (7, 3), strict=True):
        np.testing.assert_array_equal(record["image"], again[index]["image"])
        record["image"][:] = 0  # the caller's own
        assert source[index]["image"].any() and record["captions"] == again[index]["captions"]
    assert first[0]["captions"] != Scenes(16, 16, "test")[7]["captions"]


def test_relations_and_distances_are_as_said():
    source = Scenes(16, 16, "test")
    for index in range(200):
        request, rng = source._begin(index)
        places, sides = _arrange(request, rng)
        boxes = [
            [p + s * f(OUTLINES[shape]) for f in (lambda o: o.min(0), lambda o: o.max(0))]
            for p, s, (_, shape) in zip(places, sides, request.figures, strict=True)
        ]
        assert np.min(boxes) > 0.019 and np.max(boxes) < 0.981 and SIDE[0] <= sides.min() <= sides.max() <= SIDE[1]
        for (start, end), (low, high) in combinations(boxes, 2):
            assert np.max([low - end, start - high]) >= 0.06
        if request.relation:
            x, y = places[1] - places[0]
            assert (y if request.relation == "above" else x) > 1.6 * abs(x if request.relation == "above" else y)


def test_outlines_have_area_one_and_their_centre_at_the_origin():
    for shape in SHAPES:
        for height, width in ((400, 400), (300, 600)):
            coverage = figure_coverage(shape, np.array([0.5, 0.5]), 0.3, height, width)
            np.testing.assert_allclose(coverage.sum(), (0.3 * min(height, width)) ** 2, rtol=1e-6)
            rows, columns = np.indices(coverage.shape) + 0.5
            assert abs((coverage * rows).sum() / coverage.sum() - height / 2) < 1e-3
            assert abs((coverage * columns).sum() / coverage.sum() - width / 2) < 1e-3


def test_what_leaves_the_canvas_is_cut_off():
    """A disc at a corner has a quarter of itself there; one outside has nothing."""
    for corner in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        np.testing.assert_allclose(figure_coverage("disc", np.array(corner), 0.4, 40, 40).sum(), 64, rtol=1e-3)
    assert not figure_coverage("disc", np.array([0.5, -1.0]), 0.4, 40, 40).any()


def test_held_out_combinations_are_new_and_their_parts_are_not():
    for requests in (PAIRS, COUNTS):
        assert not set(requests["train"]) & set(requests["test"])
        held_out = len(requests["test"]) / (len(requests["train"]) + len(requests["test"]))
        assert 0.15 < held_out < 0.25
    mirrored = {Request(request.figures[::-1], request.relation) for request in PAIRS["test"]}
    assert len(mirrored & set(PAIRS["train"])) > 100, "the order of the words has to be understood"
    for position in (0, 1):
        seen = {(request.figures[position], request.relation) for request in PAIRS["train"]}
        assert len(seen) == len(COLOURS) * len(SHAPES) * 2
    for requests in (PAIRS, COUNTS):
        captions = {caption for request in requests["train"] for caption in request.captions}
        assert not captions & {caption for request in requests["test"] for caption in request.captions}
    assert {len(request.figures) for request in COUNTS["test"]} == {2, 3}


def test_captions_are_in_the_words_that_the_encoder_knows():
    captions = [c for kind in (PAIRS, COUNTS) for split in kind.values() for r in split for c in r.captions]
    assert {word for caption in captions for word in caption.split()} == set(WORDS)
    assert max(len(caption.split()) for caption in captions) <= 12
    request = Request((("red", "disc"), ("blue", "cross")), "left of")
    assert request.captions == [
        "a red disc left of a blue cross",
        "a red disc to the left of a blue cross",
        "a blue cross right of a red disc",
        "a blue cross to the right of a red disc",
    ]


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="data.split='val' is unknown to the scenes"):
        Scenes(16, 16, "val")
    with pytest.raises(ConfigError, match="data.image_channels=1 does not fit data.source=scenes"):
        make_source(DataConfig(source="scenes", image_channels=1), AutoencoderConfig())
    with pytest.raises(IndexError):
        Scenes(16, 16, "test")[2000]
