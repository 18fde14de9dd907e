"""Images to latents: what is stored, and how the work is shared and gone on with."""

import dataclasses
import json
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from data.encoding_files import BAD, SIZES, command_line, open_encoder, open_latents, write_vae
from PIL import Image
from script_runs import Script, run
from tiny import cpu_devices, tiny_config

from ledit_jax.config import Config
from ledit_jax.data.encoding import encode_latents
from ledit_jax.data.latent_metadata import read_metadata
from ledit_jax.data.latent_records import MOMENTS
from ledit_jax.data.transforms import center_crop, to_float
from ledit_jax.errors import ConfigError, DataError, OutputError
from ledit_jax.training.loop import train
from ledit_jax.weights import load_vae


def assert_same_records(left, right):
    assert len(left) == len(right) == 39
    for i in range(39):
        assert left[i]["label"] == right[i]["label"]
        for name in MOMENTS:
            np.testing.assert_array_equal(left[i][name], right[i][name])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data, encoder):
    """Folder and report of a run that nobody touched."""
    folder = tmp_path_factory.mktemp("latents") / "whole"
    return folder, encode_latents(data, encoder, folder, **SIZES)


def test_records_are_the_autoencoders_moments_of_both_flips(whole, images, vae):
    latents, model = open_latents(whole[0]), load_vae(vae)
    files = [file for i, file in enumerate(sorted(images.rglob("*.jpg"))) if i != BAD]
    assert len(latents) == len(files) == 39
    for i in (0, 6, 16, 17, 38):
        image = center_crop(Image.open(files[i]).convert("RGB"), 16, 12)
        x = jnp.asarray(to_float(np.stack([image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])))
        mean, logvar = model.encode(x)
        record = latents[i]
        assert record["label"] == int(files[i].parent.name[-1]) and record["mean"].shape == (8, 6, 4)
        for name, expected in zip(MOMENTS, (mean[0], logvar[0], mean[1], logvar[1]), strict=True):
            np.testing.assert_allclose(record[name], expected, atol=1e-5)
        assert abs(record["mean"] - record["mean_flip"]).max() > 1e-2


def test_metadata_and_report(whole, images, vae):
    folder, report = whole
    metadata = read_metadata(str(folder))
    stored = json.loads((folder / "metadata.json").read_text())
    assert stored == metadata.to_dict() == report.metadata.to_dict()
    assert (metadata.count, metadata.skipped, metadata.num_classes) == (39, 1, 4)
    assert (metadata.vae, metadata.scale, metadata.layout) == (vae, 0.18215, "NHWC")
    assert (metadata.height, metadata.width, metadata.downsample) == (16, 12, 2)
    assert metadata.source == f"image_folder {images}" and len(metadata.vae_id) == 16
    assert report.encoded == 39 and report.images_per_sec > 0
    # Four moments of 8 x 6 x 4 floats, a header, and what ArrayRecord adds to small files.
    assert report.bytes_per_image > 4 * 8 * 6 * 4 * 4 + 20
    assert "encoded 39 images at" in str(report) and "images/s" in str(report) and "bytes/image" in str(report)


def test_parts_make_the_same_set_and_the_last_one_finishes_it(tmp_path, data, encoder, whole):
    reports = [encode_latents(data, encoder, tmp_path, **SIZES, part=(i, 3)) for i in (2, 0, 1)]
    assert [report.metadata is not None for report in reports] == [False, False, True]
    assert [report.missing for report in reports] == [5, 2, 0]
    assert "2 files are still to be written" in str(reports[1])
    assert_same_records(open_latents(tmp_path), open_latents(whole[0]))


def test_workers_and_other_batches_make_the_same_records(tmp_path, data, encoder, whole, monkeypatch):
    encode_latents(dataclasses.replace(data, num_workers=2), encoder, tmp_path / "a", **SIZES)
    assert_same_records(open_latents(tmp_path / "a"), open_latents(whole[0]))
    shapes, compile_ = [], type(encoder).compile
    monkeypatch.setattr(type(encoder), "compile", lambda self, shape: shapes.append(shape) or compile_(self, shape))
    encode_latents(data, encoder, tmp_path / "b", **(SIZES | {"batch_size": 4096}))
    assert shapes == [(6, 16, 12, 3)], "a batch is no larger than a file"
    left, right = open_latents(tmp_path / "b"), open_latents(whole[0])
    for i in range(39):
        np.testing.assert_allclose(left[i]["mean"], right[i]["mean"], atol=1e-5)


def test_when_all_is_there_nothing_is_computed(whole, data, encoder):
    folder, _ = whole
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.array_record")}
    idle = dataclasses.replace(encoder, load=lambda: pytest.fail("the autoencoder was loaded"))
    report = encode_latents(data, idle, folder, **SIZES)
    assert report.encoded == 0 and "nothing is left to do" in str(report)
    assert before == {file.name: file.stat().st_mtime_ns for file in folder.glob("*.array_record")}


def test_another_plan_is_refused(whole, tmp_path, data, encoder):
    folder, _ = whole
    for changes, sizes, message in [
        ({"image_height": 18}, {}, r"other settings \(height=16 there, 18 here\)"),
        ({}, {"shard_size": 7}, "shard_size=6 there"),
        ({}, {"scale": 0.2}, "scale=0.18215 there"),
    ]:
        with pytest.raises(OutputError, match=message) as caught:
            encode_latents(dataclasses.replace(data, **changes), encoder, folder, **(SIZES | sizes))
        assert "\n" not in str(caught.value)
    with pytest.raises(OutputError, match="vae_id="):
        encode_latents(data, open_encoder(write_vae(tmp_path / "other", 1)), folder, **SIZES)


def test_the_same_autoencoder_may_lie_elsewhere(whole, data, encoder):
    moved = dataclasses.replace(encoder, name="/elsewhere")
    assert encode_latents(data, moved, whole[0], **SIZES).encoded == 0


def latents_config(folder, **changes) -> Config:
    values = tiny_config(train=dict(num_steps=1, batch_size=8)).to_dict()
    values["data"] |= dict(source="latents", path=str(folder), image_height=16, image_width=12, image_channels=3)
    values["autoencoder"] |= dict(kind="sd", downsample=2) | changes
    return Config.from_dict(values)


def test_training_takes_them_and_refuses_another_size_or_vae(whole, tmp_path, vae):
    folder, _ = whole
    train(latents_config(folder, checkpoint=vae), tmp_path / "run")
    other = write_vae(tmp_path / "other", 1)
    with pytest.raises(ConfigError, match=r"autoencoder.checkpoint=.*other.* is not what made the latents"):
        train(latents_config(folder, checkpoint=other), tmp_path / "refused")
    config = latents_config(folder)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, image_height=32))
    with pytest.raises(ConfigError, match=r"data.image_height=32 does not match the latents .* have 16"):
        train(config, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_a_killed_process_goes_on_without_a_duplicate_or_a_loss(tmp_path_factory, data, vae, whole):
    """A real process, SIGKILL in the middle of a file, then the same command."""
    tmp_path, log = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("logs") / "log"
    process = Script(command_line(data, vae, tmp_path), log, log)
    process.wait_for(lambda: any(tmp_path.glob("*.array_record")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*.array_record")}
    assert 0 < len(there) < 7, "the kill came too late"
    with pytest.raises(DataError, match="has no metadata.json"):
        open_latents(tmp_path)

    result = run(*command_line(data, vae, tmp_path))
    assert result.returncode == 0, result.stderr
    assert f"{len(there)} of 7 files are there" in result.stderr
    assert "images/s" in result.stdout and "bytes/image" in result.stdout
    assert not list(tmp_path.glob("*.partial"))
    assert there.items() <= {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*.array_record")}.items()
    assert_same_records(open_latents(tmp_path), open_latents(whole[0]))


def test_four_devices_share_each_batch(tmp_path, data, vae, whole):
    result = run(*command_line(data, vae, tmp_path), XLA_FLAGS=cpu_devices(4))
    assert result.returncode == 0, result.stderr
    got, expected = open_latents(tmp_path), open_latents(whole[0])
    for i in range(39):
        for name in MOMENTS:
            np.testing.assert_allclose(got[i][name], expected[i][name], atol=1e-5)
