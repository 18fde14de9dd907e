"""Strips: the first stage is noise, the last the image that is drawn without one, and what cannot be is refused."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from sampling.test_sampling import recipe
from tiny import noisy_params, tiny_config

from ledit_jax.errors import ConfigError, OutputError
from ledit_jax.files import recipe_path
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.strips import draw_strip, stage_steps, write_strip


def test_from_noise_to_the_image(tmp_path):
    config = tiny_config()
    pipeline = LEDiTPipeline(config, noisy_params(config))
    asked = recipe(num_samples=3)
    strip = draw_strip(pipeline, asked, 3)
    assert strip.shape == (3, 3, 8, 12, 1)
    np.testing.assert_array_equal(strip[:, -1], pipeline([1, 4, 7], 8, 12, options=asked.options))
    noise = strip[:, 0]
    assert np.abs(noise - 128.0).mean() > 64 and (noise != strip[:, -1]).any() and len(np.unique(noise)) > 32
    write_strip(tmp_path / "x.png", pipeline, asked, 3, overwrite=False)
    grid = np.asarray(Image.open(tmp_path / "x.png"))
    assert grid.shape == (3 * 10 + 2, 3 * 14 + 2) and recipe_path(tmp_path / "x.png").is_file()
    np.testing.assert_array_equal(grid[12:20, 30:42], strip[1, 2, :, :, 0])
    with pytest.raises(OutputError, match="exists already"):
        write_strip(tmp_path / "x.png", pipeline, asked, 3, overwrite=False)
    with pytest.raises(ConfigError, match="out=.*x.npz: a strip is one image"):
        write_strip(tmp_path / "x.npz", pipeline, asked, 3, overwrite=False)
    with pytest.raises(ConfigError, match="num_samples=65 are too many for a strip"):
        write_strip(tmp_path / "y.png", pipeline, dataclasses.replace(asked, num_samples=65), 3, overwrite=False)


def test_stages_are_spread_evenly():
    assert stage_steps(2, 250) == [0, 250] and stage_steps(5, 4) == [0, 1, 2, 3, 4]
    for stages in (1, 6):
        with pytest.raises(ConfigError, match=f"strip={stages} must be 2 to 5"):
            stage_steps(stages, 4)
