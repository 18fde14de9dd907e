"""TFDS without TensorFlow, on a data set in its array_record format that the test writes itself."""

import io
import json
import pickle
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from ledit_jax.data.source import UnreadableRecord
from ledit_jax.data.tfds import TFDS
from ledit_jax.errors import DataError


def write_dataset(root, images, channels, label_feature):
    """A data set "tiny" with the split "train", as `tfds build --file_format=array_record` lays it out."""
    features = {"image": tfds.features.Image(shape=(None, None, channels)), "label": label_feature}
    write_examples(root, features, [{"image": [data], "label": [label]} for label, data in images])


def write_examples(root, features, images):
    folder = root / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    tfds.features.FeaturesDict(features).save_config(folder)
    writer = ArrayRecordWriter(str(folder / "tiny-train.array_record-00000-of-00001"), "group_size:1")
    for values in images:
        example = tf_example_pb2.Example()
        for name, entries in values.items():
            feature = example.features.feature[name]
            (feature.bytes_list if isinstance(entries[0], bytes) else feature.int64_list).value.extend(entries)
        writer.write(example.SerializeToString())
    writer.close()
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split = {"name": "train", "shardLengths": [str(len(images))], "filepathTemplate": template}
    info = {"name": "tiny", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array.squeeze()).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("stored", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_records(tmp_path, stored, channels):
    grey = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 1), np.uint8)
    images = [(i % 3, png(np.repeat(image, stored, axis=-1))) for i, image in enumerate(grey)]
    write_dataset(tmp_path, images, stored, tfds.features.ClassLabel(num_classes=3))
    source = pickle.loads(pickle.dumps(TFDS("tiny", "train", str(tmp_path), channels)))
    assert (len(source), source.num_classes) == (4, 3)
    for i in range(4):
        record = source[i]
        assert record["label"] == i % 3 and isinstance(record["label"], int)
        np.testing.assert_array_equal(record["image"], np.repeat(grey[i], channels, axis=-1))
    assert len(TFDS("tiny", "train[1:3]", str(tmp_path))) == 2
    assert "tensorflow" not in sys.modules


def test_captions_are_read_as_coco_captions_has_them(tmp_path):
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "captions": tfds.features.Sequence({"text": np.str_, "id": np.int64}),
    }
    image = png(np.zeros((2, 2, 3), np.uint8))
    examples = [
        {"image": [image], "captions/text": [b"A disc.", "Über\n dem Haus".encode()], "captions/id": [4, 9]},
        {"image": [image], "captions/text": [b" "], "captions/id": [5]},
    ]
    write_examples(tmp_path, features, examples)
    source = pickle.loads(pickle.dumps(TFDS("tiny", "train", str(tmp_path))))
    assert source.has_captions and source.num_classes == 1
    record = source[0]
    assert (record["label"], record["captions"]) == (0, ["A disc.", "Über dem Haus"])
    with pytest.raises(UnreadableRecord, match=r"tiny train record 1: it has no caption"):
        source[1]


def test_damaged_image_is_an_unreadable_record(tmp_path):
    good = png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    write_dataset(tmp_path, [(0, good), (0, good[:500])], 3, tfds.features.ClassLabel(num_classes=1))
    source = TFDS("tiny", "train", str(tmp_path))
    assert source[0]["image"].shape == (64, 64, 3)
    with pytest.raises(UnreadableRecord, match=r"tiny train record 1"):
        source[1]


def test_images_without_a_label_are_unreadable_records(tmp_path):
    image = png(np.zeros((2, 2, 3), np.uint8))
    write_dataset(tmp_path, [(1, image), (-1, image)], 3, tfds.features.ClassLabel(num_classes=2))
    source = TFDS("tiny", "train", str(tmp_path))
    assert source[0]["label"] == 1
    with pytest.raises(UnreadableRecord, match=r"tiny train record 1: it has no label"):
        source[1]


@pytest.mark.parametrize("damage", ["missing", "empty", "info"])
def test_damaged_folders_are_refused(tmp_path, damage):
    write_dataset(tmp_path, [(0, png(np.zeros((2, 2, 3), np.uint8)))], 3, tfds.features.ClassLabel(num_classes=1))
    folder = tmp_path / "tiny" / "1.0.0"
    records = folder / "tiny-train.array_record-00000-of-00001"
    if damage == "missing":
        records.unlink()
    elif damage == "empty":
        records.write_bytes(b"")
    else:
        (folder / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match=r"data.name='tiny'.*cannot be read.*tfds build tiny") as caught:
        len(TFDS("tiny", "train", str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_refusals_are_one_line(tmp_path):
    write_dataset(tmp_path, [(0, png(np.zeros((2, 2, 3), np.uint8)))], 3, tfds.features.Scalar(np.int64))
    cases = [
        (("tiny", "test", str(tmp_path)), "data.split='test'.*Unknown split"),
        (("absent_name", "train", str(tmp_path)), "data.name='absent_name'.*not found"),
        (("tiny", "train", str(tmp_path / "elsewhere")), "elsewhere.*tfds build tiny"),
        (("tiny", "train", str(tmp_path)), "a class label, or captions, are needed"),
    ]
    for arguments, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            TFDS(*arguments)
        assert "\n" not in str(caught.value)


def test_nothing_is_downloaded(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lambda *_, **__: calls.append(1))
    with pytest.raises(DataError, match=r"data.name='mnist'.*tfds build mnist"):
        TFDS("mnist", "train", str(tmp_path))
    assert not calls
