"""What is said of damaged checkpoints: the folder, and what is wrong with it in words that a user knows."""

import json
import os
import re
import shutil
from pathlib import Path

import jax
import pytest
from tiny import network_of, tiny_config

from ledit_jax.errors import CheckpointError
from ledit_jax.models import init_params
from ledit_jax.weights import export_weights, find_checkpoint, find_lineage, load_weights


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


def test_a_lineage_that_is_none_is_refused_where_it_is_used(folder):
    file = folder / "config" / "metadata"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lineage": [1, "a"]}))
    with pytest.raises(CheckpointError, match=r"is damaged .*lineage=\[1, 'a'\] cannot be"):
        find_lineage(folder)


@pytest.mark.parametrize("name", ["", "n" * 5000, "a\0b"], ids=["empty", "long", "null"])
def test_names_that_no_folder_has(name):
    with pytest.raises(CheckpointError, match="give a workdir of train.py"):
        find_checkpoint(name)


@pytest.mark.parametrize("file", ["config/metadata", "ema/_METADATA"])
def test_a_checkpoint_hollowed_out_by_a_power_cut_is_passed_over(tmp_path, whole, file, caplog):
    for step in ("1", "2"):
        shutil.copytree(whole, tmp_path / step)
    (tmp_path / "2" / file).write_text("")
    assert find_checkpoint(tmp_path).name == "1"
    assert f"2 is half-written (it has no {file}): passed over" in caplog.text


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at Linux's /proc")
def test_all_of_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed, flush, config = [], os.fsync, tiny_config()

    def watch(descriptor):
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    export_weights(tmp_path / "c", init_params(network_of(config), jax.random.key(0)), config, step=1)
    before = {re.sub(r"\.orbax-checkpoint-tmp[^/]*", "", name) for name in flushed if "1.orbax-checkpoint-tmp" in name}
    held = {
        str(path) for path in (tmp_path / "c" / "1").rglob("*") if path.name in ("metadata", "_METADATA", "_sharding")
    }
    assert len(held) == 3 and held <= before  # the rest are marks, and arrays, whose store flushes them
