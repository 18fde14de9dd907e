"""From a folder of two hundred pictures to a grid, as docs/your_own_pictures.md has it, and folders that cannot do."""

from pathlib import Path

import numpy as np
from data.encoding_files import write_vae
from PIL import Image
from script_runs import assert_one_line, run

from benchmarks.own_pictures import table
from configs import own_pictures
from ledit_jax.config import Config
from ledit_jax.weights import load_config

ROOT = Path(__file__).parents[2]
TINY = ["--config.model.depth=2", "--config.model.width=16", "--config.model.num_heads=2", "--config.train.num_steps=3"]
TINY += ["--config.train.batch_size=4", "--config.model.dtype=float32", "--config.model.residual_dtype=same"]
TINY += ["--config.train.dilation_probability=0"]


def take_pictures(folder: Path, count: int, sides: tuple[int, int] = (24, 60)) -> Path:
    """Skies over fields with a sun, of many sizes; every other one in a class of its own where there are several."""
    rng = np.random.default_rng(0)
    for index in range(count):
        width, height = (int(side) for side in rng.integers(*sides, 2))
        y, x = np.mgrid[:height, :width] / height
        sky = np.stack([0.3 + 0.4 * y, 0.5 + 0.3 * y, 1 - 0.5 * y], -1)
        sky[y > rng.uniform(0.5, 0.8)] = rng.uniform(0.1, 0.5, 3)
        sky[np.hypot(y - 0.25, x - rng.uniform(0.2, 0.8)) < 0.12] = (1, 0.9, 0.3)
        place = folder / ("days", "evenings")[index % 2] if count > 1 else folder
        place.mkdir(parents=True, exist_ok=True)
        suffix = "png" if index % 3 else "jpg"
        Image.fromarray(np.uint8(255 * sky)).save(place / f"{index}.{suffix}")
    return folder


def test_from_the_folder_to_the_grid(tmp_path):
    pictures, vae, latents = (
        take_pictures(tmp_path / "pictures", 200),
        write_vae(tmp_path / "vae", 0),
        tmp_path / "latents",
    )
    size = ["--height=16", "--width=24", "--batch_size=50"]
    result = run("encode_latents.py", f"--path={pictures}", f"--vae={vae}", f"--output={latents}", *size)
    assert result.returncode == 0, result.stderr

    settings = [f"--config.data.path={latents}", f"--config.autoencoder.checkpoint={vae}", *TINY]
    settings += ["--config.data.image_height=16", "--config.data.image_width=24", "--config.autoencoder.downsample=2"]
    workdir = tmp_path / "own"
    result = run("train.py", "--config=configs/own_pictures.py:small,2", f"--workdir={workdir}", *settings)
    assert result.returncode == 0, result.stderr
    assert "data     200 records of latents" in result.stderr and "2 classes" in result.stderr
    assert "tokens   24 (4 x 6) of an image of 16x24" in result.stderr
    assert load_config(workdir / "checkpoints" / "3").model.num_classes == 2

    given = [
        "--height=24",
        "--width=16",
        "--num_samples=4",
        "--num_steps=2",
        "--columns=2",
        f"--out={tmp_path}/grid.png",
    ]
    result = run("sample.py", f"--checkpoint={workdir}", *given)
    assert result.returncode == 0, result.stderr
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (2 * 26 + 2, 2 * 18 + 2, 3) and grid.std() > 5


def test_folders_that_cannot_do(tmp_path):
    workdir = tmp_path / "own"
    command = ["train.py", "--config=configs/own_pictures.py:pixels", f"--workdir={workdir}"]
    one = take_pictures(tmp_path / "one", 1, (40, 60))
    assert_one_line(run(*command, f"--config.data.path={one}"), "train.batch_size: 32", "the 1 records")
    small = take_pictures(tmp_path / "small", 40, (8, 20))
    refused = run(*command, f"--config.data.path={small}")
    assert_one_line(refused, "data.image_height=32", "are more than the images of", "train at a smaller size")
    assert not workdir.exists()


def test_one_class_is_drawn_without_guidance_and_the_table_is_that_of_the_docs():
    for recipe in own_pictures.RECIPES:
        alone, several = (Config.from_dict(own_pictures.get_config(f"{recipe}{more}").to_dict()) for more in ("", ",3"))
        assert (alone.model.num_classes, alone.train.label_dropout, alone.sample.cfg_scale) == (1, 0.0, 1.0)
        assert (several.model.num_classes, several.train.label_dropout) == (3, 0.1) and several.sample.cfg_scale > 1
    assert table() in (ROOT / "docs" / "your_own_pictures.md").read_text()
