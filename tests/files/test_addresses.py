"""Addresses in the place of folders: those of buckets are kept whole, and others are one line that says what to do."""

import dataclasses
from pathlib import Path

import pytest
from tiny import noisy_params, tiny_config

from ledit_jax.data import make_source
from ledit_jax.data.latent_metadata import read_metadata
from ledit_jax.errors import LEDiTError
from ledit_jax.files import PieceFolder, as_place, is_bucket, write_json
from ledit_jax.files.refusals import unmounted
from ledit_jax.sampling.writers import check_name
from ledit_jax.training.loop import train
from ledit_jax.weights import export_weights, find_checkpoint

PAGE = "https://host/runs/a"


def make_images(place):
    config = tiny_config()
    return make_source(dataclasses.replace(config.data, source="image_folder", path=place), config.autoencoder)


@pytest.mark.parametrize(
    ("place", "use"),
    [
        (PAGE, lambda place: train(tiny_config(), place)),
        (PAGE, lambda place: train(tiny_config(), Path(place))),  # which makes one slash of two
        ("s3://bucket/run", lambda place: train(tiny_config(), place)),  # Orbax writes to Google's alone
        ("s3://bucket/run", lambda place: export_weights(place, noisy_params(tiny_config()), tiny_config(), 1)),
        (PAGE, lambda place: PieceFolder.open(Path(place), "plan.json", {})),
        (PAGE, lambda place: write_json(Path(place), {})),
        (PAGE, lambda place: check_name(Path(f"{place}.npz"))),
        (PAGE, find_checkpoint),
        (PAGE, make_images),
        (PAGE, read_metadata),
    ],
)
def test_an_address_is_no_folder(place, use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LEDiTError, match=f"{place}.* is an address, and no folder here: mount the bucket"):
        use(place)
    assert not list(tmp_path.iterdir())


def test_what_is_an_address():
    assert all(unmounted(place) for place in ("gs://b/c", "s3://b", "gs:/b/c", Path(PAGE)))
    assert not any(unmounted(place) for place in ("runs/a", "/gs/b", "gs", "gs:", "c:/x", Path("/mnt/gs:/x")))
    for name in ("gs://b/c", "s3://b/c", "az://b/c"):
        assert is_bucket(Path(name)) and str(as_place(Path(name))) == name
    assert not is_bucket(PAGE) and as_place("a/b") == Path("a/b")
