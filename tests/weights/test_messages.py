"""What is said of damaged checkpoints: the folder, and what is wrong with it in words that a user knows."""

import json
import shutil
from pathlib import Path

import jax
import pytest
from tiny import network_of, tiny_config

from ledit_jax.errors import CheckpointError
from ledit_jax.models import init_params
from ledit_jax.weights import export_weights, find_checkpoint, load_weights


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("whole") / "c", tiny_config()
    export_weights(folder, init_params(network_of(config), jax.random.key(0)), config, step=1)
    return find_checkpoint(folder)


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "1"))


def edit(folder: Path, **settings) -> None:
    file = folder / "config" / "metadata"
    values = json.loads(file.read_text())
    values["config"]["model"] |= settings
    file.write_text(json.dumps(values))


def said(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_weights(folder)
    assert str(caught.value).startswith(f"checkpoint {folder}") and len(str(caught.value)) < 300
    return str(caught.value)


def test_an_unknown_key_names_its_section_and_the_checkpoint(folder):
    edit(folder, widht=3)
    assert ": config key model.widht is unknown: did you mean width?" in said(folder)


def test_arrays_that_are_cut_short_are_named(folder):
    largest = max((folder / "ema").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    text = said(folder)
    assert " is damaged (its array " in text and text.endswith(" is missing or cut short): use another one")


def test_arrays_of_another_shape(folder):
    edit(folder, width=32)
    assert "is damaged (an array is (" in said(folder) and ") is needed): use another one" in said(folder)
