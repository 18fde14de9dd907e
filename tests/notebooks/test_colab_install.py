"""The notebook's first cell where there is no checkout: fetched, unpacked, and what Colab lacks installed, no more."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from notebooks import colab

ROOT = Path(__file__).parents[2]
PLACE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
CELL = next(
    cell.source
    for cell in nbformat.read(ROOT / "notebooks" / "ledit_colab.ipynb", as_version=4).cells
    if cell.id == "install"
)
# pip list of Colab's runtimes on 2026-08-19, of what the project asks for; jaxtyping, ml_collections and tensorboardX
# are in none of them.
_ALL = """absl-py 1.4.0, array-record 0.8.3, cloudpickle 3.1.2, flax 0.11.2, grain 0.2.18, jax 0.7.2, jaxlib 0.7.2,
matplotlib 3.10.0, numpy 2.1.3, optax 0.2.8, orbax-checkpoint 0.12.4, scikit-learn 1.6.1, scipy 1.16.3,
tensorflow-datasets 4.9.10, tokenizers 0.22.2, tqdm 4.67.3, ipywidgets 7.7.1, transformers 5.15.0, etils 1.14.0,
safetensors 0.8.0, huggingface-hub 1.27.0"""
RUNTIMES = {
    "cpu": "pillow 11.3.0",
    "gpu": "pillow 11.3.0, jax-cuda12-plugin 0.7.2",
    "tpu": "pillow 12.3.0, libtpu 0.0.21.1",
}


def packages_of(runtime: str) -> dict[str, str]:
    return dict(package.split() for package in f"{_ALL}, {RUNTIMES[runtime]}".split(","))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_colab_lacks_three_packages_and_has_none_that_is_too_old(runtime):
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    missing, old = colab.missing_packages(lines, packages_of(runtime))
    assert [re.split("[>=]", name)[0] for name in missing] == ["ml_collections", "jaxtyping", "tensorboardX"]
    assert not old


def test_what_is_older_is_said_and_left():
    missing, old = colab.missing_packages(
        ["jax>=0.7.2  # why", "", "# all", "flax>=0.11.2"], {"jax": "0.7.1", "flax": "0.12"}
    )
    assert missing == [] and old == ["jax 0.7.1 is older than 0.7.2, the oldest that is tested"]


def test_pip_may_not_replace_what_is_there(tmp_path, capsys):
    (tmp_path / "requirements.txt").write_text("numpy>=2.1.3\nno_such_package>=1.0\n")
    given = []
    colab.install(tmp_path, lambda arguments: given.append((arguments, Path(arguments[3]).read_text())))
    ((arguments, held),) = given
    assert arguments[:3] == ["install", "--quiet", "--constraint"] and arguments[4:] == ["no_such_package>=1.0"]
    assert f"numpy=={colab.installed_packages()['numpy']}\n" in held
    assert capsys.readouterr().out == "installing no_such_package>=1.0\n"
    (tmp_path / "requirements.txt").write_text("numpy>=2.1.3\n")
    colab.install(tmp_path, given.append)
    assert len(given) == 1


@pytest.fixture
def repository(tmp_path):
    """What the cell needs of the code, in a repository of git's."""
    folder = tmp_path / "repository"
    for name in ("requirements.txt", "notebooks/colab.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "ledit_jax").mkdir()
    (folder / "ledit_jax" / "__init__.py").touch()
    return folder


def run_cell(folder: Path, repository: str) -> subprocess.CompletedProcess:
    """The cell in an empty folder, in a Python that has Colab's packages by name, and a pip that notes what it gets."""
    content, fakes = folder / "content", folder / "fakes"
    content.mkdir(exist_ok=True)
    for name, version in packages_of("gpu").items():
        about = fakes / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True, exist_ok=True)
        (about / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    (fakes / "pip.py").write_text("import sys\nopen('pip-was-given', 'w').write(' '.join(sys.argv[4:]))\n")
    assert CELL.count(f'REPOSITORY = "{PLACE}"') == 1
    source = CELL.replace(f'"{PLACE}"', repr(repository))
    environment = os.environ | {"PYTHONPATH": str(fakes)}  # -S: as if nothing else were installed
    command = [sys.executable, "-S", "-c", source]
    return subprocess.run(command, cwd=content, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(shutil.which("git") is None, reason="clones a repository")
def test_cloned_and_what_is_missing_installed(repository, tmp_path):
    author = ["-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    result = run_cell(tmp_path, str(repository))
    checkout = tmp_path / "content" / "ledit-checkout"
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"using {checkout}\n")
    assert re.sub(r"\S*\.txt ", "", (checkout / "pip-was-given").read_text()) == (
        "ml_collections>=1.0 jaxtyping>=0.3 tensorboardX>=2.6"
    )


def test_from_a_zip_where_the_address_is_empty_or_cannot_be_reached(repository, tmp_path):
    result = run_cell(tmp_path, PLACE)  # whose owner is not known yet
    assert "no code: fill in REPOSITORY, or put a zip" in result.stderr
    shutil.make_archive(str(tmp_path / "content" / "code"), "zip", tmp_path, "repository")
    result = run_cell(tmp_path, str(tmp_path / "not-there"))
    assert result.returncode == 0, result.stderr
    assert "not-there cannot be reached" in result.stdout
    assert result.stdout.endswith(f"using {tmp_path / 'content' / 'ledit-checkout' / 'repository'}\n")


def test_the_address_is_one_everywhere():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    path = PLACE.split("//")[1].split("/", 1)[1]
    assert f"/github/{path}/blob/main/notebooks/ledit_colab.ipynb)" in readme
    assert f'REPOSITORY = "{PLACE}"' in CELL


def test_chips_presets_and_names():
    names = {
        "Tesla T4": ("T4", "float32"),
        "NVIDIA L4": ("L4", "bfloat16"),
        "NVIDIA A100-SXM4-80GB": ("A100", "bfloat16"),
        "NVIDIA H100 80GB HBM3": ("H100", "bfloat16"),
        "TPU v5 lite": ("v5e-1", "bfloat16"),
        "TPU v6 lite": ("v6e-1", "bfloat16"),
        "cpu": ("CPU", "float32"),
    }
    for kind, (name, dtype) in names.items():
        chip = colab.find_chip(kind, "any", None)
        assert (chip.name, chip.dtype) == (name, dtype) and str(chip).startswith(f"{name}: ")
    assert colab.find_chip("NVIDIA A100-SXM4-80GB", "gpu", 79 * 2**30, "8.0").memory == 79 * 2**30
    assert not colab.find_chip("Tesla V100", "gpu", None, "7.0").has_bfloat16
    assert colab.classes_of("animals", 1000)[0] == 207 and colab.classes_of("animals", 10) == list(range(10))
    assert colab.parse_classes("otter, 7,", ["cat", "Otter"]) == [1, 7]
    with pytest.raises(ValueError, match="'dog' is the name of no class"):
        colab.parse_classes("dog", ["cat"])
