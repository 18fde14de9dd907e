"""What README, docs and the commands' docstrings mention is there: links, paths, modules, commands, flags, settings."""

import ast
import dataclasses
import functools
import re
from pathlib import Path

from experiments.study.config import StudyConfig
from ledit_jax.config import Config, SampleConfig

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for folder in (".", "docs", "docs/extrapolation", "benchmarks", "assets")
    for path in (ROOT / folder).glob("*.md")
)
SCRIPTS = sorted(path for folder in (".", "configs", "benchmarks") for path in (ROOT / folder).glob("*.py"))
SCRIPTS += sorted((ROOT / "experiments").rglob("*.py"))
# Flags of other people's programs that the pages name by themselves.
FOREIGN = {"dependency", "device-type", "max-restarts", "signal", "tpu-type", "worker"}


@functools.cache
def text_of(path: Path) -> str:
    """A page, or a script's docstring, with commands of several lines joined."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    return re.sub(r"\\+\n\s*", "", text)


@functools.cache
def code_of(page: Path) -> list[str]:
    """The lines of a page's code blocks, and its inline code."""
    fence = re.compile(r"^```\w*\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in fence.findall(text_of(page)) for line in block.splitlines()]
    text = fence.sub("", text_of(page))
    lines += re.findall(r"^ {4}(\S.*)$", text, flags=re.MULTILINE)
    return lines + [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def commands() -> list[tuple[str, str, str]]:
    """(where, script or module, the rest of its line) for each command of ours."""
    found = []
    for path in PAGES + SCRIPTS:
        for line in text_of(path).splitlines() if path.suffix == ".py" else code_of(path):
            for match in re.finditer(r"python (?:-m )?([\w./]+)((?:(?!python ).)*)", line):
                if match[1].endswith(".py") or match[1].startswith("experiments"):
                    found.append((path.name, match[1], match[2]))
    return found


def source_of(name: str) -> Path | None:
    """The file of `a/b.py`, or of the module a.b."""
    stem = name.replace(".", "/")
    candidates = [name] if name.endswith(".py") else [f"{stem}/__main__.py", f"{stem}.py"]
    return next((ROOT / candidate for candidate in candidates if (ROOT / candidate).is_file()), None)


@functools.cache
def flags_of(source: Path) -> set[str]:
    """The flags that a command defines, those among them that ledit_jax/cli defines for it."""
    text = source.read_text()
    cli = "\n".join(path.read_text() for path in sorted((ROOT / "ledit_jax" / "cli").glob("*.py")))
    names = {"help"}
    for function in re.findall(r"cli\.(define_\w+)\(", text):
        text += re.search(rf"^def {function}\(.*?(?=^def |\Z)", cli, flags=re.DOTALL | re.MULTILINE)[0]
        names |= {field.name for field in dataclasses.fields(SampleConfig)} if "setting" in function else set()
    names |= set(re.findall(r'DEFINE_\w*\(\s*"(\w+)"', text)) | set(re.findall(r'add_argument\(\s*"--(\w+)"', text))
    return names | {f"no{name}" for name in names}


def has_field(name: str) -> bool:
    """Whether an experiment or a study has the field a.b; what only begins like one is another thing."""
    for config in (Config(), StudyConfig()):
        for part in name.split("."):
            config = getattr(config, part, None)
        if config is not None:
            return True
    return False


def test_links_and_images_are_there():
    missing = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            if "://" in target or (linked.exists() and not anchor):
                continue
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), flags=re.MULTILINE) if linked.exists() else []
            if anchor not in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]:
                missing.append(f"{page.name}: {target}")
    assert not missing


def test_paths_are_there():
    rooms = "ledit_jax|experiments|configs|docs|benchmarks|tests|assets|notebooks"
    pattern = re.compile(rf"(?<![\w/])(?:{rooms})/[\w./-]*\w")
    found = [(page, path) for page in PAGES + SCRIPTS for path in pattern.findall(text_of(page))]
    assert len(found) > 100
    assert not [f"{page.name}: {path}" for page, path in found if not (ROOT / path).exists()]


def test_names_in_modules_are_there():
    missing = []
    for page in PAGES:
        for name in re.findall(r"\b(?:ledit_jax|experiments)(?:\.\w+)+", " ".join(code_of(page))):
            parts, path = name.split("."), ROOT
            while parts and (path / parts[0]).is_dir():
                path /= parts.pop(0)
            if parts and (path / f"{parts[0]}.py").is_file():
                path /= f"{parts.pop(0)}.py"
            text = (path / "__init__.py" if path.is_dir() else path).read_text()
            missing += [f"{page.name}: {name}" for part in parts if not re.search(rf"\b{part}\b", text)]
    assert not missing


def test_commands_and_their_flags_are_there():
    missing = []
    for where, name, rest in commands():
        source = source_of(name)
        flags = re.findall(r"(?<![^\s\[])--([\w-]+)((?:\.\w+)*)", rest) if source else [("", "")]
        for flag, field in flags:
            if not (source and flag in flags_of(source) and (not field or has_field(field[1:]))):
                missing.append(f"{where}: {name} --{flag}{field}")
    assert len(commands()) > 60
    assert not missing


def test_flags_settings_and_targets_by_themselves_are_there():
    known, missing = set().union(FOREIGN, *map(flags_of, SCRIPTS)), []
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for code in code_of(page):
            there = [flag in known for flag in re.findall(r"^--([\w-]+)", code)]
            there += [has_field(field) for field in re.findall(r"^--config\.([\w.]+)", code)]
            settings = re.findall(r"^((?:model|diffusion|data|autoencoder|train|sample|mesh)\.\w+)\b(?!\()", code)
            there += [has_field(name) for name in settings if not name.endswith((".py", ".md", ".safetensors"))]
            there += [f"\n{target}:" in makefile for target in re.findall(r"^make ([a-z-]+)", code)]
            missing += [f"{page.name}: {code}"] * (not all(there))
    assert not missing
