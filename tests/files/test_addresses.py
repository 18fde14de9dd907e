"""Addresses of buckets in the place of folders: one line that says what to do, and no folder called "gs:" is made."""

import dataclasses
from pathlib import Path

import pytest
from tiny import tiny_config

from ledit_jax.data import make_source
from ledit_jax.data.latent_metadata import read_metadata
from ledit_jax.errors import LEDiTError
from ledit_jax.files import PieceFolder, write_json
from ledit_jax.files.refusals import unmounted
from ledit_jax.sampling.writers import check_name
from ledit_jax.training.loop import train
from ledit_jax.weights import find_checkpoint

BUCKET = "gs://bucket/runs/a"


def make_images(place):
    config = tiny_config()
    return make_source(dataclasses.replace(config.data, source="image_folder", path=place), config.autoencoder)


@pytest.mark.parametrize(
    "use",
    [
        lambda place: train(tiny_config(), place),
        lambda place: train(tiny_config(), Path(place)),  # which makes one slash of two
        lambda place: PieceFolder.open(Path(place), "plan.json", {}),
        lambda place: write_json(Path(place), {}),
        lambda place: check_name(Path(f"{place}.npz")),
        find_checkpoint,
        make_images,
        read_metadata,
    ],
    ids=["workdir", "Path", "pieces", "file", "samples", "checkpoint", "images", "latents"],
)
def test_an_address_is_no_folder(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LEDiTError, match=f"{BUCKET}.* is an address, and no folder here: mount the bucket"):
        use(BUCKET)
    assert not list(tmp_path.iterdir())


def test_what_is_an_address():
    assert all(unmounted(place) for place in (BUCKET, "s3://b", "gs:/b/c", Path("https://host/x")))
    assert not any(unmounted(place) for place in ("runs/a", "/gs/b", "gs", "gs:", "c:/x", Path("/mnt/gs:/x")))
