"""Where samples go: grids, folders and ADM's npz, each whole or not there at all."""

import numpy as np
import pytest
from PIL import Image

from ledit_jax.errors import ConfigError, OutputError
from ledit_jax.files import recipe_path
from ledit_jax.sampling.writers import check_out, open_writer

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)


def write(out, images=IMAGES, overwrite=False):
    with open_writer(out, len(images), columns=3, overwrite=overwrite) as write_batch:
        write_batch(images[:2])
        assert not out.exists() or overwrite
        write_batch(images[2:])
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_npz_is_adm_layout(tmp_path):
    write(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as archive:
        assert archive.files == ["arr_0"]
        np.testing.assert_array_equal(archive["arr_0"], IMAGES)


def test_grey_npz_gets_three_equal_channels(tmp_path):
    write(tmp_path / "x.npz", IMAGES[..., :1])
    with np.load(tmp_path / "x.npz") as archive:
        np.testing.assert_array_equal(archive["arr_0"], np.repeat(IMAGES[..., :1], 3, axis=-1))


def test_folder_has_one_png_each(tmp_path):
    write(tmp_path / "images")
    for index, image in enumerate(IMAGES):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "images" / f"{index:06d}.png")), image)


def test_grid_has_every_image_in_its_place(tmp_path):
    write(tmp_path / "x.png")
    grid = np.asarray(Image.open(tmp_path / "x.png"))
    assert grid.shape == (2 * 8 + 2, 3 * 6 + 2, 3)
    np.testing.assert_array_equal(grid[2:8, 8:12], IMAGES[1])
    np.testing.assert_array_equal(grid[10:16, 2:6], IMAGES[3])


@pytest.mark.parametrize("name", ["x.png", "x.npz", "images"])
def test_existing_output_is_kept_unless_told_otherwise(tmp_path, name):
    write(tmp_path / name)
    with pytest.raises(OutputError, match="exists already: choose another name, or set overwrite"):
        write(tmp_path / name)
    recipe_path(tmp_path / name).write_text("{}")
    with open_writer(tmp_path / name, len(IMAGES), columns=3, overwrite=True) as write_batch:
        write_batch(IMAGES[::-1])
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".json"] == [name]


@pytest.mark.parametrize(
    "place",
    ["run/checkpoints/4/ema/d", "run/2024/photo.jpg", "run/000000.png", "run/000000.png/x", "run.npz/000000.png"],
)
def test_what_is_not_ours_is_never_overwritten(tmp_path, place):
    """A training run, somebody's folder, images without a recipe, and folders by the name of a file."""
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("precious")
    if place != "run/000000.png":
        (tmp_path / "run.recipe.json").write_text("{}")
    with pytest.raises(OutputError, match="not overwritten: choose another name"):
        check_out(tmp_path / place.split("/")[0], overwrite=True)
    assert (tmp_path / place).read_text() == "precious"


@pytest.mark.parametrize("name", ["x.png", "x.npz", "images"])
def test_what_fails_leaves_nothing_behind(tmp_path, name):
    with pytest.raises(KeyboardInterrupt), open_writer(tmp_path / name, 5, 3, overwrite=False) as write_batch:
        write_batch(IMAGES[:2])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_unknown_ending_and_unwritable_place(tmp_path):
    with pytest.raises(ConfigError, match="unknown ending"):
        write(tmp_path / "x.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file" / "x.npz")
