"""Sets of images: every kind read in order from any place, and what cannot be judged refused in one line."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from ledit_jax.data.transforms import center_crop
from ledit_jax.errors import ConfigError, DataError
from ledit_jax.evaluation.images import open_images
from ledit_jax.sampling.writers import open_writer

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 6, 4, 3), dtype=np.uint8)


def everything(name, batch_size=3, start=0, **size):
    images = open_images(str(name), **size)
    read = np.concatenate(list(images.batches(batch_size, start)))
    assert read.shape[1:3] == tuple(images.size) and len(read) == images.count - start
    return read


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("start", [0, 2, 6])
def test_npz_from_any_place(tmp_path, save, start):
    save(tmp_path / "x.npz", IMAGES, mu=np.zeros(3))
    np.testing.assert_array_equal(everything(tmp_path / "x.npz", start=start), IMAGES[start:])


def test_npz_and_folder_as_sample_py_writes_them(tmp_path):
    for name in ("x.npz", "x"):
        with open_writer(tmp_path / name, len(IMAGES), 3, overwrite=False) as write:
            write(IMAGES)
        np.testing.assert_array_equal(everything(tmp_path / name), IMAGES)


def test_folder_is_read_in_the_order_of_its_paths_and_cropped_as_training_crops(tmp_path):
    for index, image in enumerate(IMAGES):
        (tmp_path / f"class{index % 2}").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"class{index % 2}" / f"{index}.png")
    (tmp_path / "readme.txt").write_text("no image")
    order = IMAGES[[0, 2, 4, 6, 1, 3, 5]]
    np.testing.assert_array_equal(everything(tmp_path), order)
    cropped = [np.asarray(center_crop(Image.fromarray(p), 3, 5)) for p in order]
    np.testing.assert_array_equal(everything(tmp_path, height=3, width=5), cropped)


def test_data_sources_at_any_size():
    digits = everything("digits:test", batch_size=100, height=12, width=20)
    assert digits.shape == (355, 12, 20, 3) and digits.std() > 50
    assert open_images("shapes", 16, 16).count == 20_000


def save(path, array):
    np.savez(path, array)
    return path


BAD = {
    "float": (lambda p: save(p / "x.npz", IMAGES / 255), "arr_0 is float64.*must be uint8"),
    "nan": (lambda p: save(p / "x.npz", np.full((2, 4, 4, 3), np.nan, np.float32)), "arr_0 is float32.*must be uint8"),
    "nchw": (lambda p: save(p / "x.npz", IMAGES.transpose(0, 3, 1, 2)), r"transpose it \(0, 2, 3, 1\)"),
    "alpha": (lambda p: save(p / "x.npz", np.zeros((2, 4, 4, 4), np.uint8)), r"must be \[N, height, width, 3\]"),
    "grey": (lambda p: save(p / "x.npz", IMAGES[..., :1]), "grey images.*repeat the grey in three channels"),
    "grey3": (lambda p: save(p / "x.npz", IMAGES[..., 0]), "grey images"),
    "none": (lambda p: save(p / "x.npz", IMAGES[:0]), "holds no images"),
    "no_arr_0": (lambda p: np.savez(p / "x.npz", images=IMAGES) or p / "x.npz", "no images.*only images"),
    "missing": (lambda p: p / "nothing", "does not exist"),
    "other": (lambda p: (p / "x.txt").write_text("") or p / "x.txt", "neither a folder nor an .npz"),
    "empty": (lambda p: p, "holds no images"),
}


@pytest.mark.parametrize("make, message", BAD.values(), ids=BAD)
def test_bad_sets(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        open_images(str(make(tmp_path)) or "")


@pytest.mark.parametrize("bytes_left", [100, 400, -60])
def test_truncated_npz(tmp_path, bytes_left):
    path = save(tmp_path / "x.npz", IMAGES)
    path.write_bytes(path.read_bytes()[:bytes_left])
    with pytest.raises(DataError, match="damaged or cut short"):
        open_images(str(path))


def test_npz_whose_images_end_early(tmp_path):
    """A whole archive around an array that is not: what a writer leaves that took its header first."""
    save(tmp_path / "whole.npz", IMAGES)
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive:
        array = archive.read("arr_0.npy")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("arr_0.npy", array[:-100])
    with pytest.raises(DataError, match=r"uint8 \[7, 6, 4, 3\] are 504 bytes, and it has 404"):
        open_images(str(tmp_path / "x.npz"))


def test_damaged_pixels(tmp_path):
    path = save(tmp_path / "x.npz", IMAGES)
    data = bytearray(path.read_bytes())
    data[300] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged or cut short"):
        everything(path, batch_size=7)


class TestBadFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        for index, image in enumerate(IMAGES):
            Image.fromarray(image).save(tmp_path / f"{index}.png")
        return tmp_path

    def test_sizes_differ(self, folder):
        Image.fromarray(IMAGES[0, :5]).save(folder / "5.png")
        with pytest.raises(DataError, match=r"5.png is 5x4 and 0.png 6x4.*a height and a width"):
            everything(folder)

    def test_unreadable(self, folder):
        (folder / "6.png").write_bytes((folder / "6.png").read_bytes()[:60])
        with pytest.raises(DataError, match=r"6.png cannot be read"):
            everything(folder)

    def test_grey(self, folder):
        for path in folder.iterdir():
            Image.open(path).convert("L").save(path)
        with pytest.raises(DataError, match=r"grey images \(mode L\)"):
            everything(folder)

    def test_one_grey_image_among_coloured_ones_is_converted(self, folder):
        Image.open(folder / "3.png").convert("L").save(folder / "3.png")
        assert everything(folder).shape == IMAGES.shape


@pytest.mark.parametrize(
    "name, size, message",
    [
        ("digits", {}, "digits has no size of its own"),
        ("tfds:imagenet2012", dict(height=8, width=8), "name the data set and the split"),
        ("shapes:train:x", dict(height=8, width=8), "at most a split"),
        ("digits", dict(height=8), "give both, or neither"),
        ("digits", dict(height=0, width=8), "must be positive"),
    ],
)
def test_bad_sources(name, size, message):
    with pytest.raises(ConfigError, match=message):
        open_images(name, **size)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(DataError, match="x.npz is neither a folder nor an .npz"):
        open_images(str(tmp_path / "x.npz"))
