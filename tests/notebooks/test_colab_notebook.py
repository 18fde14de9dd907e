"""The notebook as a user runs it: top to bottom in a kernel of its own, sliders pressed, PyTorch weights converted.

Its first cell, where it has to install, is in test_colab_install.py.
"""

import asyncio
import base64
import io
import os
from pathlib import Path

import jax
import nbformat
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL as TorchVAE
from nbclient import NotebookClient
from oracles import torch_dit
from PIL import Image
from tiny import network_of, tiny_config

from ledit_jax.config import model_preset
from ledit_jax.models.functional import init_params
from ledit_jax.weights import export_weights
from notebooks import colab

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "ledit_colab.ipynb"
LONGEST = 400
"""Seconds that the notebook may take; about 30 on a quiet machine."""

# Run inside the notebook, after the cell of the sliders and after the last one.
PRESS_THE_BUTTON = """
values = dict(
    label=3, count=2, height=8, width=16, cfg_scale=2.0, num_steps=5, seed=1, attention_scaling=False
)
for child, (name, value) in zip(sliders.children, values.items()):
    assert child.value != value, f"{name} would not move"
    child.value = value
    assert child.value == value, f"{name} is {child.value}, beyond the ends of its slider"
assert sliders.result is None, "moving a slider must not draw"
sliders.manual_button.click()
assert sliders.result.shape == (2, 8, 16, 1) and sliders.result.dtype == "uint8"
size_and_rest = {name: value for name, value in values.items() if name not in ("label", "count")}
options = pipe.options(sampler="dpmpp", attention_scaling=size_and_rest.pop("attention_scaling"))
assert (sliders.result == pipe([3, 3], options=options, **size_and_rest)).all()
"""
CHECK_THE_IMAGES = """
assert sizes == [(8, 8), (12, 12), (16, 16), (8, 16), (16, 8)]
for size, images in images_of.items():
    assert images.shape == (10, *size, 1) and images.dtype == "uint8"
    assert all(image.std() > 1 for image in images)
assert archive.name == "pictures.zip" and sum(map(len, images_of.values())) == 50
archive.unlink()
assert own.config.model.num_classes == 1 and own.config.train.num_steps == 3
assert own_images[2].shape == (8, 32, 32, 1) and len(list(folder.glob("*.png"))) == 10
shutil.rmtree(folder)
shutil.rmtree("runs/own")
assert (with_scaling == images_of[16, 16]).all(), "not the same seeds, or scaling is not the default"
assert (with_scaling != without_scaling).any()
"""


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def execute(cells, stacks, folder=NOTEBOOK.parent):
    """Runs cells in a fresh kernel, which starts in `folder`, as Jupyter does. An error in a cell is raised here.

    stacks: a file, to which the kernel writes half a minute before LONGEST where its threads are; told where it does
        not end. It writes once, and late: the dump reads the frames of running threads, which can end the kernel.
    """
    watch = f"import faulthandler; faulthandler.dump_traceback_later({LONGEST - 30}, file=open({str(stacks)!r}, 'w'))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(watch), *cells])
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    try:
        return asyncio.run(asyncio.wait_for(client.async_execute(), LONGEST))
    except TimeoutError:
        last = stacks.read_text().rpartition("Timeout (")[2]
        at = next((cell.source for cell in reversed(notebook.cells) if cell.get("execution_count")), "none")
        pytest.fail(f"after {LONGEST} s the kernel was here; the last cell that it ended was\n{at}\n\n{last}")


def position(notebook, name):
    return next(index for index, cell in enumerate(notebook.cells) if cell.id == name)


def images_in(outputs):
    """The PNGs among a cell's outputs."""
    shown = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")) for png in shown]


def assert_sheet(image, least_height, least_width):
    """Large enough for the images it should hold, and with grey levels that no text has."""
    assert image.shape[0] >= least_height and image.shape[1] >= least_width
    assert len(np.unique(image)) > 100


def test_top_to_bottom_with_a_tiny_checkpoint(notebook, tmp_path, monkeypatch):
    config, key = tiny_config(), jax.random.key(1)
    params = jax.tree.map(
        lambda a: a + 0.1 * jax.random.normal(key, a.shape), init_params(network_of(config), jax.random.key(0))
    )
    export_weights(tmp_path / "tiny", params, config, step=1)
    monkeypatch.setenv("LEDIT_CHECKPOINT", str(tmp_path / "tiny"))

    cells, press = [cell.copy() for cell in notebook.cells], nbformat.v4.new_code_cell(PRESS_THE_BUTTON)
    own = cells[position(notebook, "own")]
    assert "STEPS = 300" in own.source and 'fine_tune("assets/glyphs"' in own.source
    own.source = own.source.replace("STEPS = 300", "STEPS = 3").replace('"assets/glyphs"', "checkpoint")
    after_sliders = position(notebook, "sliders") + 1
    check = nbformat.v4.new_code_cell(CHECK_THE_IMAGES)
    done = execute([*cells[:after_sliders], press, *cells[after_sliders:], check], tmp_path / "stacks")

    outputs = {cell.id: cell.outputs for cell in done.cells if cell.cell_type == "code"}
    assert f"using {ROOT}" in str(outputs["install"])
    assert "10 classes, trained at 8x8, computes in float32" in str(outputs["checkpoint"])
    assert "0 0, 1 1, 2 2" in str(outputs["checkpoint"])
    (sheet,) = images_in(outputs["sizes"])
    assert_sheet(sheet, (8 + 12 + 16) * 6, 9 * 16 * 6)
    (sheet,) = images_in(outputs["scaling"])
    assert_sheet(sheet, 3 * 16 * 6, 2 * 4 * 16 * 6)
    widgets = done.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    shown = [w["state"]["outputs"] for w in widgets if w["model_name"] == "OutputModel"]
    (sheet,) = [image for outputs in shown for image in images_in(outputs)]
    assert_sheet(sheet, 8 * 6, 2 * 16 * 6)


def test_pytorch_weights_are_converted_once_and_drawn_with(notebook, tmp_path, monkeypatch, capsys):
    # One block of DiT-S's width, from which the number of heads follows.
    model = model_preset("DiT-S/2", depth=1, num_classes=10)
    torch.save(torch_dit.torch_peer(model, grid=(4, 4)).state_dict(), tmp_path / "dit.pt")
    blocks = dict(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    vae = TorchVAE(block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4, **blocks)
    vae.save_pretrained(tmp_path / "vae")
    monkeypatch.setenv("LEDIT_CHECKPOINT", str(tmp_path / "dit.pt"))
    monkeypatch.setenv("LEDIT_VAE", str(tmp_path / "vae"))

    source = notebook.cells[position(notebook, "checkpoint")].source
    names = dict(os=os, Path=Path, jax=jax, colab=colab, chip=colab.this_chip())
    exec(source, names)
    said = capsys.readouterr().out
    assert "trained at 64x64" in said and "used again" not in said
    assert names["dtype"] is None and names["checkpoint"].name == "dit.pt-jax" and names["checkpoint"].is_dir()
    pipe = names["pipe"]
    images = pipe([1, 2], height=64, width=96, options=pipe.options(sampler="dpmpp", num_steps=2))
    assert images.shape == (2, 64, 96, 3) and images.std() > 1
    assert 1 <= colab.batch_size(pipe, colab.find_chip("Tesla T4", "gpu", None), 64, 96) <= 64
    exec(source, names)
    assert capsys.readouterr().out.count("used again") == 2


def test_it_is_stored_without_outputs_and_with_ids_that_stay(notebook):
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids) and all(name.replace("-", "").isalpha() for name in ids)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    assert "widgets" not in notebook.metadata
