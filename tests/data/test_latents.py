"""Latent files: the packed record, the writer, and what the source refuses."""

import dataclasses
import json
import pickle
import struct

import numpy as np
import pytest

from ledit_jax.config import AutoencoderConfig
from ledit_jax.data.latent_metadata import LatentMetadata
from ledit_jax.data.latent_records import MOMENTS, decode_record, encode_record
from ledit_jax.data.latents import Latents, LatentWriter, shard_path, write_metadata
from ledit_jax.data.source import UnreadableRecord
from ledit_jax.errors import ConfigError, DataError, OutputError

SD = AutoencoderConfig(kind="sd")
METADATA = LatentMetadata("test-vae", 0.18215, 32, 48, 8, 4, "noise", num_classes=5)


def record(index: int, shape=(4, 6, 4)) -> dict:
    moments = np.random.default_rng(index).standard_normal((4, *shape)).astype(np.float32)
    return dict(zip(MOMENTS, moments, strict=True)) | {"label": index % 5}


def write_folder(folder, num_shards=3, per_shard=2, metadata=METADATA):
    for shard in range(num_shards):
        with LatentWriter(folder, metadata.shape, shard, num_shards) as writer:
            for i in range(per_shard):
                writer.write(record(shard * per_shard + i, metadata.shape))
    return write_metadata(folder, metadata, num_shards)


def assert_same(left: dict, right: dict):
    assert left["label"] == right["label"]
    for name in MOMENTS:
        np.testing.assert_array_equal(left[name], right[name])


def test_record_layout_is_as_documented():
    one = record(3)
    data = encode_record(one)
    assert data[:4] == b"LAT1" and struct.unpack("<4I", data[4:20]) == (4, 6, 4, 3)
    stored = np.frombuffer(data[20:], "<f4").reshape(4, 4, 6, 4)
    for moment, name in zip(stored, ("mean", "logvar", "mean_flip", "logvar_flip"), strict=True):
        np.testing.assert_array_equal(moment, one[name])
    assert len(data) == 20 + 4 * 4 * 4 * 6 * 4
    assert_same(decode_record(data), one)


def test_records_that_cannot_be_packed_or_unpacked():
    data = encode_record(record(0))
    for broken in (b"", b"LAT0" + data[4:], data[:-1], data + b"\0"):
        with pytest.raises(ValueError, match=r"latent record"):
            decode_record(broken)
    with pytest.raises(ValueError, match=r"one shape"):
        encode_record(record(0) | {"logvar": np.zeros((4, 6, 3), np.float32)})


def test_folder_round_trip(tmp_path):
    assert write_folder(tmp_path).count == 6
    source = pickle.loads(pickle.dumps(Latents(str(tmp_path), 32, 48, SD)))
    assert (len(source), source.num_classes) == (6, 5)
    for i in (5, 0, 3):
        assert_same(source[i], record(i))
    with pytest.raises(IndexError):
        source[6]
    stored = json.loads((tmp_path / "metadata.json").read_text())
    assert stored == METADATA.to_dict() | {"count": 6} and stored["layout"] == "NHWC"


def test_writers_do_not_overwrite_and_leave_nothing_half_written(tmp_path):
    write_folder(tmp_path, num_shards=1)
    with pytest.raises(OutputError, match=r"latents-00000-of-00001.array_record' exists"):
        LatentWriter(tmp_path, METADATA.shape)
    with pytest.raises(RuntimeError, match=r"interrupted"), LatentWriter(tmp_path, METADATA.shape, 1, 2) as writer:
        writer.write(record(0))
        raise RuntimeError("interrupted")
    with pytest.raises(ValueError, match=r"mean has shape"), LatentWriter(tmp_path, METADATA.shape, 0, 2) as writer:
        writer.write(record(0, (4, 4, 4)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latents-00000-of-00001.array_record", "metadata.json"]
    with pytest.raises(DataError, match=r"lacks latents-00000-of-00002.array_record, one of 2"):
        write_metadata(tmp_path, METADATA, num_shards=2)


@pytest.mark.parametrize(
    "height, width, changes, message",
    [
        (48, 48, {}, "data.image_height=48 .* have 32"),
        (32, 32, {}, "data.image_width=32 .* have 48"),
        (32, 48, {"latent_channels": 16}, "autoencoder.latent_channels=16 .* have 4"),
        (32, 48, {"scale": 0.13025}, "autoencoder.scale=0.13025 .* have 0.18215"),
        (32, 48, {"downsample": 4}, "autoencoder.downsample=4 .* have 8"),
        (32, 48, {"kind": "none"}, "autoencoder.kind=none"),
    ],
)
def test_other_settings_are_refused(tmp_path, height, width, changes, message):
    write_folder(tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        Latents(str(tmp_path), height, width, dataclasses.replace(SD, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda root: (root / "metadata.json").unlink(), "has no metadata.json"),
        (lambda root: (root / "metadata.json").write_text("{"), "metadata.json is damaged or no JSON"),
        (lambda root: (root / "metadata.json").write_text("[]"), "metadata.json holds a list, and a dict is needed"),
        (lambda root: (root / "metadata.json").write_text('{"vae": "x"}'), "metadata.json has other fields .*scale"),
        (lambda root: shard_path(root, 1, 3).unlink(), "an incomplete set of files.*counts 6"),
        (lambda root: write_folder(root, num_shards=1), "an incomplete set of files.*counts 2"),
        (lambda root: cut(shard_path(root, 1, 3)), "latents-00001-of-00003.array_record is damaged or cut short"),
        (lambda root: edit(root, count=7), "holds 6 records.*counts 7"),
    ],
)
def test_damaged_folders_are_refused(tmp_path, damage, message):
    write_folder(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        Latents(str(tmp_path), 32, 48, SD)
    assert "\n" not in str(caught.value)


def test_a_bit_that_changed_makes_a_record_unreadable(tmp_path):
    write_folder(tmp_path)
    path = shard_path(tmp_path, 1, 3)
    content = bytearray(path.read_bytes())
    content[content.find(b"LAT1") + 100] ^= 1
    path.write_bytes(content)
    latents, unreadable = Latents(str(tmp_path), 32, 48, SD), []
    for index in range(6):
        try:
            latents[index]
        except UnreadableRecord as error:
            unreadable.append(str(error))
    assert len(unreadable) == 1 and unreadable[0].startswith(f"{tmp_path} latent 2: ")


def test_another_layout_is_refused(tmp_path):
    write_folder(tmp_path)
    edit(tmp_path, layout="NCHW")
    with pytest.raises(ConfigError, match="the layout=NHWC .* have NCHW"):
        Latents(str(tmp_path), 32, 48, SD)


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def edit(root, **changes):
    stored = json.loads((root / "metadata.json").read_text())
    (root / "metadata.json").write_text(json.dumps(stored | changes))
