"""A loader that goes on where it, or another one, had stopped: bit for bit, or not at all."""

import dataclasses
import json

import numpy as np
import pytest
from data.loader_files import DIGITS, PIXELS, SD, assert_same_batch, indices, write_images, write_latents

from ledit_jax.data.moves import Leg, Shuffles
from ledit_jax.errors import ConfigError


@pytest.mark.parametrize(
    "kind, workers_before, workers_after",
    [
        ("digits", 0, 0),
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
        ({"process_count": 2, "batch_size": 4, "seed": 3}, "seed=0"),
    ):
        with pytest.raises(ConfigError, match=name):
            open_loader(DIGITS, **arguments).set_state(state)


@pytest.mark.parametrize("counts", [(1, 2, 3, 1), (3, 2), (2, 6, 2)])
def test_every_record_once_an_epoch_while_the_number_of_processes_changes(open_loader, tmp_path, counts):
    """Of 48 records in batches of 6 over all processes: moved after 3 batches each time, in the middle of an epoch."""
    config, states, seen = dataclasses.replace(write_images(tmp_path, 48), flip=False), None, []
    for count in counts:
        shares = [dict(process_index=i, process_count=count, batch_size=6 // count) for i in range(count)]
        loaders = [open_loader(config, **share) for share in shares]
        for loader in loaders:
            if states:
                loader.set_states(states)
        taken = 3 if count != counts[-1] or len(seen) < 18 * (len(counts) - 1) else 16
        seen += [index for _ in range(taken) for loader in loaders for index in indices(loader, 1)]
        states = json.loads(json.dumps([loader.get_state() for loader in loaders]))
    np.testing.assert_array_equal(np.bincount(seen[:48], minlength=48), np.ones(48))
    np.testing.assert_array_equal(np.bincount(seen[48:96], minlength=48), np.ones(48))

    again = open_loader(config, **shares[0])  # and from there bit for bit
    again.set_states(states)
    assert_same_batch(next(again), next(loaders[0]))


def test_what_is_left_where_shares_end_an_epoch_one_record_apart():
    shuffles = Shuffles(10, seed=0)
    legs = [Leg(3, 1, 2), Leg(2, 1, 2)]  # three records are left for two shares
    left = shuffles.left_over(legs[:1])
    assert len(left) == 3
    rest = shuffles.left_over(legs)  # one share has begun the next epoch, of five records, and the other has to
    assert len(rest) == 4 + 5
