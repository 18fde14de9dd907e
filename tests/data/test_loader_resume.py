"""A loader that goes on where it, or another one, had stopped: bit for bit, or not at all."""

import dataclasses
import json

import numpy as np
import pytest
from data.loader_files import DIGITS, PIXELS, SD, assert_same_batch, write_images, write_latents

from ledit_jax.errors import ConfigError


@pytest.mark.parametrize(
    "kind, workers_before, workers_after",
    [
        ("digits", 0, 0),
        ("digits", 2, 2),
        ("image_folder", 0, 0),
        ("image_folder", 2, 0),
        ("latents", 0, 0),
        ("latents", 0, 2),
    ],
)
def test_resume_is_bit_for_bit(open_loader, tmp_path, kind, workers_before, workers_after):
    if kind == "digits":
        config = DIGITS
    else:
        config = write_latents(tmp_path) if kind == "latents" else write_images(tmp_path, bad=(3, 4, 29))
    autoencoder = SD if kind == "latents" else PIXELS
    config = dataclasses.replace(config, max_bad_share=1.0)
    reference = open_loader(config, autoencoder)
    expected = [next(reference) for _ in range(12)]
    assert not np.array_equal(expected[0]["x"], expected[6]["x"])

    first, second = (
        open_loader(dataclasses.replace(config, num_workers=workers), autoencoder)
        for workers in (workers_before, workers_after)
    )
    for batch in expected[:7]:
        assert_same_batch(next(first), batch)
    state = json.loads(json.dumps(first.get_state()))
    assert_same_batch(next(first), expected[7])  # beyond the state, with more read ahead
    second.set_state(state)
    for batch in expected[7:]:
        assert_same_batch(next(second), batch)
    assert second.get_state() == reference.get_state()


def test_a_loader_goes_back_in_place(open_loader):
    loader = open_loader(DIGITS)
    state = loader.get_state()
    batches = [next(loader) for _ in range(3)]
    loader.set_state(state)
    for batch in batches:
        assert_same_batch(next(loader), batch)


def test_a_state_of_another_stream_is_refused(open_loader):
    state = open_loader(DIGITS).get_state()
    for arguments, name in (
        ({"batch_size": 4}, "batch_size=8, and this run has batch_size=4"),
        ({"seed": 3}, "seed=0"),
        ({"process_count": 2}, "records=1442, and this run has records=721"),
    ):
        with pytest.raises(ConfigError, match=name):
            open_loader(DIGITS, **arguments).set_state(state)
