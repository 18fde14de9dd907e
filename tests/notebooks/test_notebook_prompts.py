"""The notebook with a model that draws from text: the prompts' field, the negative prompt, and the sliders' text."""

import os
from pathlib import Path

import jax
import nbformat
import numpy as np
from tiny import network_of, tiny_config
from tiny_text import LENGTH, WIDTH, write_text_encoder

from ledit_jax.config import Config
from ledit_jax.models import init_params
from ledit_jax.weights import export_weights, load_text_encoder
from notebooks import colab

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "ledit_colab.ipynb"


def text_checkpoint(folder: Path) -> tuple[str, str]:
    """(checkpoint, text encoder) of a tiny MMDiT of grey images 8x8."""
    values = tiny_config("NoPE").to_dict()
    values["model"] |= dict(network="mmdit")
    values["text"] |= dict(encoder="clip", length=LENGTH, width=WIDTH)
    config, text = Config.from_dict(values), write_text_encoder(folder / "clip")
    params, key = init_params(network_of(config), jax.random.key(0)), jax.random.key(1)
    params = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(key, a.shape), params)
    export_weights(folder / "c", params | {"empty_caption": load_text_encoder(text)([""])[0]}, config, step=1)
    return str(folder / "c"), text


def test_prompts_are_drawn_and_typed(tmp_path, monkeypatch, capsys):
    checkpoint, text = text_checkpoint(tmp_path)
    monkeypatch.setenv("LEDIT_CHECKPOINT", checkpoint)
    monkeypatch.setenv("LEDIT_TEXT_ENCODER", text)
    source = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    names = dict(os=os, Path=Path, jax=jax, colab=colab, chip=colab.this_chip(), display=lambda sheet: None)
    exec(source["checkpoint"], names)
    assert f"{checkpoint}: prompts, trained at 8x8" in capsys.readouterr().out
    one_size = source["sizes"].replace("(1, 1), (1.5, 1.5), (2, 2), (1, 2), (2, 1)", "(1, 1)")
    one_size = one_size.replace('PROMPTS = "a red bus | ', 'PROMPTS = "cat|').replace("NUM_STEPS = 25", "NUM_STEPS = 5")
    exec(one_size, names)
    assert names["asked"] == ["cat", "a bowl of fruit", "a dog in the snow", "a city at night"]
    assert names["images_of"][8, 8].shape == (4, 8, 8, 1)
    exec(source["sliders"], names)
    assert names["sliders"].children[0] is names["what"] and names["what"].value == "a city at night"
    names["NEGATIVE_PROMPT"] = "fog"
    drawn = names["draw_one"]("dog", 4, 8, 8, 4.0, 5, 0, True)
    options = names["pipe"].options(sampler="dpmpp", num_steps=5, cfg_scale=4.0, negative_prompt="fog")
    np.testing.assert_array_equal(drawn, names["pipe"](["dog"] * 4, 8, 8, options=options))
