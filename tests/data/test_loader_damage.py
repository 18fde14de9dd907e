"""Damaged images: skipped, counted and named, up to the share that the config allows."""

import dataclasses
import logging

import numpy as np
import pytest
from data.loader_files import indices, write_images

from ledit_jax.errors import DataError


@pytest.mark.parametrize("num_workers", [0, 2])
def test_damaged_images_are_skipped_counted_and_named(open_loader, tmp_path, caplog, num_workers):
    config = dataclasses.replace(write_images(tmp_path, bad=(7, 39)), max_bad_share=0.1, num_workers=num_workers)
    loader = open_loader(config)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # epochs
            # Number 8 stands in for number 7, and number 0 for the last.
            expected = np.delete(np.append(np.arange(40), [0, 8]), [7, 39])
            np.testing.assert_array_equal(np.sort(indices(loader, 5)), np.sort(expected))
    assert loader.bad_records == 4
    named = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert len(named) == 2 and all(sum(name in message for message in named) == 1 for name in ("007.png", "039.png"))


def test_too_many_damaged_images_stop_the_run(open_loader, tmp_path):
    config = write_images(tmp_path, bad=(7, 20, 39))
    loader = open_loader(dataclasses.replace(config, max_bad_share=0.05))
    with pytest.raises(DataError, match=r"data.max_bad_share=0.05 is exceeded: .* records could not be read"):
        indices(loader, 20)
    assert loader.get_state()["next_batch"] * 8 + loader.bad_records >= 100
    indices(open_loader(dataclasses.replace(config, max_bad_share=0.08)), 20)  # 3 of 43 is less


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_folder_of_damaged_images_stops_at_once(open_loader, tmp_path, num_workers):
    config = dataclasses.replace(write_images(tmp_path, bad=range(40)), num_workers=num_workers)
    with pytest.raises(DataError, match=r"40 records in a row cannot be read.*png"):
        next(open_loader(config))
