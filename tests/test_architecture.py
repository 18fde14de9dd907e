"""Imports run one way, as the README's map of the package says; torch stays in the converter; files are short."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ledit_jax"
TREES = ("benchmarks", "configs", "experiments", "ledit_jax", "tests")
BELOW = {
    "errors": set(),
    "signals": set(),
    "early": {"signals"},
    "progress": set(),
    "files": {"errors", "progress"},
    "config": {"errors"},
    "parallel": {"errors", "config"},
    "ops": {"errors", "parallel"},
    "models": {"errors", "config", "parallel", "ops"},
    "diffusion": {"errors", "config"},
    "data": {"errors", "config", "files", "progress"},
    "weights": {"errors", "config", "files", "parallel", "models", "diffusion"},
    "flops": {"models"},
    "convert": {"errors", "config", "files", "models", "diffusion", "weights"},
    "hub": {"errors", "config", "data", "files", "models", "progress", "weights", "convert"},
    "evaluation": {"errors", "config", "data", "files", "models", "parallel", "progress"},
    "training": {
        "errors",
        "config",
        "files",
        "parallel",
        "ops",
        "models",
        "diffusion",
        "data",
        "weights",
        "hub",
        "flops",
    },
    "sampling": {
        "errors",
        "config",
        "files",
        "progress",
        "parallel",
        "ops",
        "models",
        "diffusion",
        "data",
        "weights",
        "hub",
    },
    "compile_only": {"errors", "config", "flops", "models", "diffusion", "parallel", "training", "sampling"},
    "cli": {"errors", "signals", "config", "files", "parallel"},
    "__init__": {"sampling"},
}
"""What each room may import."""


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
    assert ours - {room} <= BELOW[room]


def test_nothing_imports_the_experiments():
    assert not any(name.split(".")[0] == "experiments" for p in PACKAGE.rglob("*.py") for name in imports(p))


def test_torch_is_imported_in_the_converter_alone():
    guilty = [p for p in PACKAGE.rglob("*.py") if any(n.split(".")[0] in ("torch", "diffusers") for n in imports(p))]
    assert all(p.parent.name == "convert" for p in guilty)


def test_what_few_need_is_imported_where_it_is_needed():
    """A TPU's host needs no PyTorch, and --help none of them."""
    heavy = {"torch", "diffusers", "transformers", "safetensors", "huggingface_hub"}
    for path in PACKAGE.rglob("*.py"):
        top = ast.Module([node for node in ast.parse(path.read_text()).body if "Import" in type(node).__name__], [])
        names = {alias.name for node in top.body if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in top.body if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & heavy, path


def test_files_are_short():
    files = [*ROOT.glob("*.py"), *(path for tree in TREES for path in (ROOT / tree).rglob("*.py"))]
    assert len(files) > 400 and not {path for path in files if path.read_text().count("\n") > 250}
