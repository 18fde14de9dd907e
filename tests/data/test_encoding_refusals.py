"""What encoding refuses, before it begins and while it writes, and what its command says."""

import dataclasses
import os
import shutil
from pathlib import Path

import jax
import pytest
from data.encoding_files import BAD, ROOT, SIZES, command_line, open_encoder
from script_runs import assert_one_line, run

from ledit_jax.data.encoding import encode_latents
from ledit_jax.data.latents import shard_path
from ledit_jax.errors import CheckpointError, ConfigError, DataError, OutputError


def test_bad_images_are_named_and_too_many_stop(tmp_path, data, encoder, caplog):
    encode_latents(data, encoder, tmp_path / "a", **SIZES)
    assert f"{BAD}.jpg" in caplog.text
    many = dataclasses.replace(data, max_bad_share=0.0)
    for i in range(3):  # a verdict takes 100 reads
        folder = Path(tmp_path / "many" / str(i))
        folder.mkdir(parents=True)
        for file in Path(data.path).rglob("*.jpg"):
            os.link(file, folder / file.name)
    with pytest.raises(DataError, match=r"data.max_bad_share=0.0 is exceeded: . of 1\d\d records"):
        encode_latents(dataclasses.replace(many, path=str(tmp_path / "many")), encoder, tmp_path / "b", **SIZES)
    assert not list((tmp_path / "b").glob("*.partial"))


def test_latents_without_a_plan_are_left_alone(tmp_path, data, encoder):
    (tmp_path / "log.txt").write_text("what a job printed")
    (tmp_path / "old.array_record").write_text("precious")
    with pytest.raises(OutputError, match=r"holds other things, and no plan.json"):
        encode_latents(data, encoder, tmp_path, **SIZES)
    (tmp_path / "old.array_record").unlink()
    assert encode_latents(data, encoder, tmp_path, **SIZES).metadata.count == 39


def test_two_processes_cannot_write_one_file(tmp_path, data, encoder):
    import fcntl

    path = shard_path(tmp_path, 1, 7).with_suffix(".partial")
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match=r"latents-00001-of-00007.partial' is being written by another process"):
            encode_latents(data, encoder, tmp_path, **SIZES)
    assert encode_latents(data, encoder, tmp_path, **SIZES).metadata.count == 39  # the file is now free


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--path=/nothing", "--path='/nothing' is not a folder"),
        ("--vae=/nothing", "checkpoint /nothing does not exist"),
        ("--height=15", "height=15 is not a positive multiple of 2"),
        ("--part=2/2", "--part=2/2 must be INDEX/COUNT"),
    ],
    ids=["path", "vae", "height", "part"],
)
def test_bad_input_is_one_line(tmp_path, data, vae, flag, message):
    assert_one_line(run(*command_line(data, vae, tmp_path / "out"), flag), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(batch_size=2**40), "batch_size=1099511627776 with height=16 and width=12 need .* GiB of memory or more"),
        (dict(scale=float("nan")), "scale=nan is not a number greater than 0"),
        (dict(scale=0.0), "scale=0.0 is not a number greater than 0"),
        (dict(shard_size=2**31), "shard_size=2147483648 is too large"),
        (dict(output=""), "'' is no name of a folder"),
        (dict(max_bad_share=float("nan")), "data.max_bad_share=nan is not between 0 and 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_numbers_that_cannot_be_are_refused_before_a_plan_is_made(tmp_path, data, encoder, changes, message):
    sizes = SIZES | {"output": tmp_path / "out"} | changes
    data = dataclasses.replace(data, max_bad_share=sizes.pop("max_bad_share", 0.0))
    with pytest.raises((ConfigError, OutputError), match=message):
        encode_latents(data, encoder, **sizes)
    assert not list(tmp_path.iterdir())


def test_devices_must_divide_the_batch(tmp_path, data, encoder, monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: 8)
    with pytest.raises(ConfigError, match="batch_size=4 is not a multiple of the 8 devices"):
        encode_latents(data, encoder, tmp_path, **SIZES)


def test_a_models_checkpoint_is_no_vae():
    with pytest.raises(CheckpointError, match="is a model's, and a VAE's is needed"):
        open_encoder(str(ROOT / "assets" / "digits"))


def test_help_teaches():
    result = run("encode_latents.py", "--help")
    assert result.returncode == 0
    for part in ("python encode_latents.py --source=tfds", "the same command goes on", "--part=0/8", "--shard_size"):
        assert part in result.stdout


def test_a_folder_that_goes_away_ends_it(tmp_path, data, encoder):
    class Removing:
        """An autoencoder that takes the folder away as the second file begins."""

        def __getattr__(self, name):
            return getattr(encoder, name)

        def check_fits(self, batch_shape):
            encoder.check_fits(batch_shape)

        def compile(self, batch_shape):
            encode, calls = encoder.compile(batch_shape), []

            def one(images):
                calls.append(1)
                if len(calls) == 4:
                    shutil.rmtree(tmp_path / "latents")
                return encode(images)

            return one

    with pytest.raises(OutputError, match=r"latents was removed, moved or replaced"):
        encode_latents(data, Removing(), tmp_path / "latents", **SIZES)
    assert not list(tmp_path.rglob("*.array_record"))
