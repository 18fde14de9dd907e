"""Every config has been compiled for the slice that it is sized for, as it stands, and says what that took."""

import ast
import importlib
from pathlib import Path

import pytest

from benchmarks.compile_configs import ELSEWHERE, RESULTS, SLICES, needs, settings_of, still_holds
from ledit_jax.files.readers import read_json

ROOT = Path(__file__).parents[2]
COMPILED = read_json(RESULTS)


def test_every_config_has_its_place():
    assert {path.stem for path in (ROOT / "configs").glob("*.py")} == SLICES.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("name", SLICES)
def test_it_was_compiled_as_it_stands_and_fits(name):
    row = COMPILED[name]
    assert row["fits"] and row["topology"]["name"] == SLICES[name]
    assert still_holds(row["settings"], settings_of(name)), f"{name}: python benchmarks/compile_configs.py"
    changed = row["settings"] | {"model": row["settings"]["model"] | {"remat": "other"}}
    assert not still_holds(changed, settings_of(name))


@pytest.mark.parametrize("name", SLICES)
def test_its_docstring_has_the_figure(name):
    text = " ".join(ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text())).split())
    assert needs(COMPILED[name]) in text and SLICES[name] in text


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_for_no_tpu_is_a_config_all_the_same(name):
    assert importlib.import_module(f"configs.{name}").get_config()
