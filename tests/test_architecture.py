"""Imports run one way, as the README's map of the package says; torch stays in the converter."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ledit_jax"
ALLOWED = {
    "config": set(),
    "ops": {"config"},
    "models": {"config", "ops"},
    "diffusion": {"config"},
    "files": set(),
    "progress": set(),
    "data": {"config", "files"},
    "sharding": {"config", "ops"},
    "distributed": {"config"},
    "flops": {"config"},
    "encoding": {"config", "data", "files", "weights"},
    "convert": {"config", "models", "weights", "evaluation"},
    "evaluation": {"config", "data", "files", "progress", "writers"},
    "weights": {"config", "models"},
    "training": {
        "config",
        "ops",
        "models",
        "diffusion",
        "data",
        "sharding",
        "distributed",
        "weights",
        "files",
        "flops",
    },
    "denoising": {"config", "models", "diffusion"},
    "pipeline": {"config", "denoising", "ops", "models", "diffusion", "distributed", "progress", "weights"},
    "compile_only": {"config", "denoising", "flops", "models", "sharding", "training"},
    "writers": {"config"},
    "shards": {"config", "distributed", "files", "progress", "writers"},
    "sampling": {"config", "distributed", "files", "pipeline", "progress", "shards", "writers"},
    "cli": {"config", "distributed", "training", "weights"},
    "analysis": {
        "config",
        "ops",
        "models",
        "diffusion",
        "data",
        "files",
        "evaluation",
        "progress",
        "pipeline",
        "training",
        "weights",
        "cli",
    },
    "__init__": {"pipeline"},
}
COMPOSERS = {
    "evaluation/sweep.py": {"config", "cli", "convert", "files", "pipeline", "sampling", "weights"},
}
"""Commands that live in a room and compose what lies above it; nothing imports them."""


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("ledit_jax.")}
    assert ours - {room} <= COMPOSERS.get(path.relative_to(PACKAGE).as_posix(), ALLOWED[room])


def test_composers_are_imported_by_nothing():
    names = {f"ledit_jax.{path.removesuffix('.py').replace('/', '.')}" for path in COMPOSERS}
    assert not any(names & imports(path) for path in PACKAGE.rglob("*.py"))


def test_torch_is_imported_in_the_converter_alone():
    guilty = [p for p in PACKAGE.rglob("*.py") if any(n.split(".")[0] in ("torch", "diffusers") for n in imports(p))]
    assert all(p.parent.name == "convert" for p in guilty)
