"""Images with captions: what COCO's JSON and texts beside images say, and what is refused."""

import dataclasses
import json
import logging
import pickle

import numpy as np
import pytest
from data.captioned_files import CAPTIONS, save_jpeg, write_coco
from PIL import Image

from ledit_jax.config import AutoencoderConfig
from ledit_jax.data import make_source
from ledit_jax.data.captioned import open_captioned_folder, open_coco
from ledit_jax.data.source import UnreadableRecord
from ledit_jax.data.transforms import center_crop
from ledit_jax.errors import ConfigError, DataError

NAMES = list(CAPTIONS)


def test_coco_gives_each_image_with_all_its_captions(tmp_path):
    config = write_coco(tmp_path)
    source = pickle.loads(pickle.dumps(make_source(config, AutoencoderConfig())))
    assert (len(source), source.num_classes, source.has_captions) == (3, 1, True)
    for i, (name, texts) in enumerate(CAPTIONS.items()):
        record = source[i]
        crop = center_crop(Image.open(tmp_path / "train2014" / name).convert("RGB"), 16, 12)
        np.testing.assert_array_equal(record["image"], crop)
        assert record["label"] == 0
        assert record["captions"] == [" ".join(text.split()) for text in reversed(texts)]
    with pytest.raises(IndexError):
        source[3]


def test_images_without_captions_are_left_out_and_said(tmp_path, caplog):
    config = write_coco(tmp_path, CAPTIONS | {NAMES[1]: [" \n"]})
    with caplog.at_level(logging.WARNING, "ledit_jax"):
        source = make_source(config, AutoencoderConfig())
    assert [record["captions"][-1] for record in source] == ["A red disc.", "Flowers in a vase."]
    assert f"1 of 3 images, which have no caption, {NAMES[1]} first" in caplog.text


def test_the_fingerprint_tells_captions_and_images(tmp_path):
    found = set()
    for name, captions in {"a": CAPTIONS, "b": CAPTIONS | {NAMES[0]: ["Other."]}, "c": CAPTIONS}.items():
        (tmp_path / name).mkdir()
        config = write_coco(tmp_path / name, captions)
        if name == "c":
            save_jpeg(tmp_path / name / "train2014" / NAMES[0], 9)
        found.add(make_source(config, AutoencoderConfig()).fingerprint)
    assert len(found) == 3


def edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: v.pop("annotations"), "captions_train2014.json lacks annotations"),
        (lambda v: v["images"][1].pop("id"), "an entry of images lacks id"),
        (lambda v: v["annotations"][2].update(caption=7), "an entry of annotations: caption is a int, and a str"),
        (lambda v: v["images"].pop(0), "image_id=9 is none of its images"),
        (lambda v: v.update(annotations=[]), "has no image with a caption, of 3 images"),
    ],
    ids=["part", "id", "caption", "image", "empty"],
)
def test_annotations_of_another_form_are_refused(tmp_path, change, message):
    config = write_coco(tmp_path)
    edit(tmp_path / "captions_train2014.json", change)
    with pytest.raises(DataError, match=message) as caught:
        make_source(config, AutoencoderConfig())
    assert "\n" not in str(caught.value)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path):
    config = write_coco(tmp_path)
    for name in NAMES[1:]:
        (tmp_path / "train2014" / name).unlink()
    with pytest.raises(DataError, match=rf"names 3 captioned images, and 2 of them are not in .*, {NAMES[1]} first"):
        make_source(config, AutoencoderConfig())


def test_what_is_given_must_be_there_and_belong_together(tmp_path):
    config = write_coco(tmp_path)
    with pytest.raises(DataError, match="data.annotations='' is not a file: give COCO's JSON"):
        open_coco(config.path, "")
    with pytest.raises(DataError, match="data.path='/nothing' is not a folder"):
        open_coco("/nothing", config.annotations)
    with pytest.raises(ConfigError, match=r"data.annotations=.* has no effect with data.source=digits"):
        make_source(dataclasses.replace(config, source="digits"), AutoencoderConfig())


def test_a_folder_with_a_text_beside_each_image(tmp_path, caplog):
    for seed, name in enumerate(["b.jpg", "deep/a.png", "without.jpg"]):
        save_jpeg(tmp_path / name, seed)
    (tmp_path / "b.txt").write_text("A red disc.\n\n  A  disc. \n", encoding="utf-8-sig")
    (tmp_path / "deep" / "a.txt").write_text("Blumen für dich")
    (tmp_path / "README.txt").write_text("no caption")
    with caplog.at_level(logging.WARNING, "ledit_jax"):
        source = open_captioned_folder(str(tmp_path))
    assert [record["captions"] for record in source] == [["A red disc.", "A disc."], ["Blumen für dich"]]
    assert source[1]["image"].shape == (21, 20, 3)
    assert "1 of 3 images, which have no caption, without.jpg first" in caplog.text
    (tmp_path / "b.jpg").write_bytes(b"none")
    with pytest.raises(UnreadableRecord, match=r"b.jpg"):
        source[0]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"b.txt is no text in UTF-8"):
        open_captioned_folder(str(tmp_path))
