"""Folders of images: classes, tables, modes, and what is refused."""

import os

import numpy as np
import pytest
from PIL import Image

from ledit_jax.data.image_folder import ImageFolder
from ledit_jax.data.source import UnreadableRecord
from ledit_jax.data.transforms import center_crop
from ledit_jax.errors import DataError


def save(path, value=0, mode="RGB", size=(6, 4), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


def test_classes_are_sorted_folders_with_nested_files(tmp_path):
    save(tmp_path / "zebra" / "a.png", (10, 0, 0))
    save(tmp_path / "ant" / "deep" / "er" / "b.JPEG", (20, 20, 20))
    save(tmp_path / "ant" / "c.png", (30, 0, 0))
    save(tmp_path / ".hidden" / "d.png")
    save(tmp_path / "ant" / "._c.png")
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    source = ImageFolder(str(tmp_path))
    assert (len(source), source.num_classes) == (3, 2)
    assert [(source[i]["label"], source[i]["image"][0, 0, 0]) for i in range(3)] == [(0, 30), (0, 20), (1, 10)]
    assert source[0]["image"].shape == (4, 6, 3)
    with pytest.raises(IndexError):
        source[3]


def test_labels_follow_the_sorted_names(tmp_path):
    names = [f"n{number:04d}" for number in np.random.default_rng(0).permutation(50)]
    for name in names:  # made in no order, and a file system lists them in none
        save(tmp_path / name / "a.png", (int(name[1:]), 0, 0))
    source = ImageFolder(str(tmp_path))
    assert [(source[i]["label"], source[i]["image"][0, 0, 0]) for i in range(50)] == [(i, i) for i in range(50)]


def test_images_without_class_folders_are_of_one_class(tmp_path, caplog):
    for name in ("b.png", "a.jpg"):
        save(tmp_path / name)
    (tmp_path / ".hidden").mkdir()
    source = ImageFolder(str(tmp_path))
    assert source.num_classes == 1 and source.entries == [("a.jpg", 0), ("b.png", 0)]
    save(tmp_path / "cats" / "c.png")
    assert ImageFolder(str(tmp_path)).entries == [("cats/c.png", 0)]
    assert "beside the class folders" in caplog.text and "2 images" in caplog.text


def test_images_smaller_than_the_crop(tmp_path, caplog):
    save(tmp_path / "a.png", size=(30, 20))
    save(tmp_path / "b.png", size=(24, 12))
    message = "data.image_height=24 and data.image_width=32 are more than .* the largest of 2 is 20x30: train at"
    with pytest.raises(DataError, match=message):
        ImageFolder(str(tmp_path), size=(24, 32))
    save(tmp_path / "c.png", size=(32, 40))
    assert len(ImageFolder(str(tmp_path), size=(24, 32))) == 3
    assert "67% of the images are smaller than 24x32, and are enlarged" in caplog.text


@pytest.mark.parametrize("heading", ["file,label\n", ""])
def test_table_of_labels(tmp_path, heading):
    save(tmp_path / "x.png", (1, 0, 0))
    save(tmp_path / "sub" / "with, comma.png", (2, 0, 0))
    (tmp_path / "labels.csv").write_text(heading + 'x.png,4\n"sub/with, comma.png",0\n')
    source = ImageFolder(str(tmp_path))
    assert (len(source), source.num_classes) == (2, 5)
    assert [(source[i]["label"], source[i]["image"][0, 0, 0]) for i in range(2)] == [(4, 1), (0, 2)]


@pytest.mark.parametrize(
    "mode, value, suffix, expected",
    [
        ("L", 77, ".png", (77, 77, 77)),
        ("1", 1, ".png", (255, 255, 255)),
        ("P", 0, ".png", (0, 0, 0)),
        ("LA", (9, 128), ".png", (9, 9, 9)),
        ("RGBA", (1, 2, 3, 128), ".png", (1, 2, 3)),
        ("CMYK", (255, 0, 0, 0), ".tif", (0, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb_or_grey(tmp_path, mode, value, suffix, expected):
    save(tmp_path / "a" / f"p{suffix}", value, mode)
    np.testing.assert_array_equal(ImageFolder(str(tmp_path))[0]["image"][1, 2], expected)
    grey = ImageFolder(str(tmp_path), channels=1)[0]["image"]
    assert grey.shape == (4, 6, 1) and abs(int(grey[0, 0, 0]) - np.dot((0.299, 0.587, 0.114), expected)) <= 1


def test_exif_orientation_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show a quarter turn clockwise
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3] = 255  # bright left half as stored, so bright upper half as shown
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "p.png", exif=exif)
    image = ImageFolder(str(tmp_path))[0]["image"]
    assert image.shape == (6, 4, 3) and image[:3].min() == 255 and image[3:].max() == 0


def test_images_are_cropped_as_they_are_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(noise).save(tmp_path / "a" / "p.png")
    image = ImageFolder(str(tmp_path), size=(16, 8))[0]["image"]
    np.testing.assert_array_equal(image, np.asarray(center_crop(Image.fromarray(noise), 16, 8)))


def test_damaged_files_are_unreadable_records(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    (tmp_path / "a").mkdir()
    for name in ("cut.jpg", "cut.png"):
        Image.fromarray(noise).save(tmp_path / "a" / name)
        data = (tmp_path / "a" / name).read_bytes()
        (tmp_path / "a" / name).write_bytes(data[: len(data) // 2])
    (tmp_path / "a" / "empty.png").touch()
    (tmp_path / "a" / "text.jpg").write_text("this is no image")
    source = ImageFolder(str(tmp_path))
    assert len(source) == 4
    for i, name in enumerate(("cut.jpg", "cut.png", "empty.png", "text.jpg")):
        with pytest.raises(UnreadableRecord, match=name):
            source[i]


@pytest.mark.parametrize(
    "arrange, message",
    [
        (lambda root: None, "neither images, nor class folders, nor a labels.csv"),
        (lambda root: (root / "labels.csv").write_text("file,label\n"), "names no images"),
        (lambda root: (root / "labels.csv").write_text("a.png,cat\n"), "line 1 is 'a.png,cat'"),
        (lambda root: (root / "labels.csv").write_text("a.png,1\nb.png,-1\n"), "line 2 is 'b.png,-1'"),
        (
            lambda root: [save(root / "full" / "a.png"), (root / "void").mkdir()],
            "class folder .*void.* has no images",
        ),
    ],
)
def test_refusals_are_one_line(tmp_path, arrange, message):
    arrange(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        ImageFolder(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "does/not/exist"])
def test_missing_folder(path):
    with pytest.raises(DataError, match=r"data.path=.* is not a folder"):
        ImageFolder(path)


def test_sixteen_bits_keep_their_grey_and_floats_are_refused_by_name(tmp_path):
    (tmp_path / "a").mkdir()
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "a" / "0.png")
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "a" / "1.tiff")
    images = ImageFolder(str(tmp_path), channels=1)
    np.testing.assert_array_equal(images[0]["image"][..., 0], ramp >> 8)
    with pytest.raises(UnreadableRecord, match="1.tiff: its values are of mode F"):
        images[1]


def test_a_needle_of_an_image_is_unreadable_and_takes_no_memory(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("1", (100_000, 1)).save(tmp_path / "a" / "0.png")
    save(tmp_path / "a" / "1.png", size=(256, 256))
    with pytest.raises(UnreadableRecord, match="0.png: 100000x1 .width x height. is too long to be cut to 256x256"):
        ImageFolder(str(tmp_path), size=(256, 256))[0]


@pytest.mark.filterwarnings("default")
def test_links_in_a_circle_and_pipes(tmp_path, caplog):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
        (tmp_path / name / "up").symlink_to(tmp_path)
        (tmp_path / name / "self").symlink_to(tmp_path / name)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    with caplog.at_level("WARNING", logger="ledit_jax"):
        images = ImageFolder(str(tmp_path))
    assert images.entries == [("a/0.png", 0), ("b/0.png", 1)]
    assert "no regular file" in caplog.text and "pipe.png" in caplog.text
    (tmp_path / "labels.csv").write_text("a/pipe.png,0")
    with pytest.raises(UnreadableRecord, match="pipe.png: it is no regular file"):
        ImageFolder(str(tmp_path))[0]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\xffa.png,0", "no table in UTF-8"),
        ("a.png,²".encode(), "line 1 is 'a.png,²'"),
        (b"a.png,2147483648", "label 2147483648 is too large"),
        (b"a.png," + b"9" * 5000, "is too large"),
    ],
)
def test_tables_that_cannot_be(tmp_path, content, message):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        ImageFolder(str(tmp_path))
