"""What the notebook needs beside the package: packages that a runtime lacks, settings for its chip, classes to show,
pictures of one's own. Imported before anything is installed."""

import io
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_GIB = 2**30


def installed_packages() -> dict[str, str]:
    """Version by normalised name of all that this Python has."""
    found = ((package.metadata["Name"], package.version) for package in distributions())
    return {_normalised(name): version for name, version in found if name}


def missing_packages(requirements: Iterable[str], installed: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(requirements that nothing is installed for, sentences on what is older than asked for).

    requirements: lines of a requirements.txt, comments allowed. installed: version by normalised name. What is there
    is never asked for again, so that nothing of a runtime is replaced.
    """
    missing, old = [], []
    for line in requirements:
        requirement = line.split("#")[0].strip()
        if not requirement or requirement.startswith("-"):
            continue
        name, _, least = requirement.partition(">=")
        version = installed.get(_normalised(name))
        if version is None:
            missing.append(requirement)
        elif _numbers(version) < _numbers(least):
            old.append(f"{name} {version} is older than {least}, the oldest that is tested")
    return missing, old


def install(checkout: Path, pip: Callable[[list[str]], object] | None = None) -> None:
    """Installs what requirements.txt asks for and this Python lacks, and replaces nothing.

    pip: is given pip's arguments; by default pip itself, whose failure is an error.
    """
    installed = installed_packages()
    lines = [*(checkout / "requirements.txt").read_text().splitlines(), "ipywidgets"]
    missing, old = missing_packages(lines, installed)
    print(*old, sep="\n", end="\n" if old else "")
    if not missing:
        print("nothing is missing")
        return
    print(f"installing {', '.join(missing)}")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as held:
        # What a missing package needs may be missing too, so pip looks for it; but it may not touch what is there.
        held.write("".join(f"{name}=={version}\n" for name, version in installed.items()))
        held.flush()
        (pip or _pip)(["install", "--quiet", "--constraint", held.name, *missing])


def _pip(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


@dataclass(frozen=True)
class Chip:
    """One device of a runtime. memory: bytes that programs can have."""

    name: str
    memory: int
    has_bfloat16: bool

    @property
    def dtype(self) -> str:
        """What matrix products are best computed in."""
        return "bfloat16" if self.has_bfloat16 else "float32"

    def __str__(self) -> str:
        why = "" if self.has_bfloat16 else ", which has no units for bfloat16"
        return f"{self.name}: {self.memory / _GIB:.0f} GiB, {self.dtype}{why}"


# What a device calls itself -> (the runtime's name at Colab, GiB, whether it has units for bfloat16).
CHIPS = {
    "Tesla T4": ("T4", 15, False),
    "NVIDIA L4": ("L4", 22, True),
    "NVIDIA A100": ("A100", 40, True),
    "NVIDIA H100": ("H100", 80, True),
    "TPU v5 lite": ("v5e-1", 16, True),
    "TPU v5e": ("v5e-1", 16, True),
    "TPU v6 lite": ("v6e-1", 32, True),
    "TPU v6e": ("v6e-1", 32, True),
    "cpu": ("CPU", 12, False),
}


def find_chip(kind: str, platform: str, memory: int | None, capability: str | None = None) -> Chip:
    """The chip that jax calls `kind`, such as "NVIDIA A100-SXM4-40GB"; one that is not known is taken as it says.

    memory: bytes, where the device tells. capability: of an NVIDIA GPU, such as "8.0".
    """
    found = next((values for start, values in CHIPS.items() if kind.lower().startswith(start.lower())), None)
    if found is None:
        has_bfloat16 = platform == "tpu" or (platform == "gpu" and float(capability or 0) >= 8)
        return Chip(kind, memory or 8 * _GIB, has_bfloat16)
    name, gib, has_bfloat16 = found
    return Chip(name, memory or gib * _GIB, has_bfloat16)


def this_chip() -> Chip:
    """That of this runtime."""
    import jax

    device = jax.devices()[0]
    told = (device.memory_stats() or {}).get("bytes_limit")
    return find_chip(device.device_kind, device.platform, told, getattr(device, "compute_capability", None))


# Of ImageNet; `classes_of` knows the rest.
PRESETS = {
    "DiT's figure": (207, 360, 387, 974, 88, 979, 417, 279),
    "animals": (207, 250, 281, 291, 130, 323, 360, 387),
    "landscapes": (970, 972, 973, 974, 975, 978, 979, 980),
    "food": (928, 933, 949, 953, 959, 963, 967, 988),
    "things": (417, 483, 497, 779, 817, 846, 849, 888),
}


def parse_classes(text: str, names: Sequence[str]) -> list[int]:
    """Labels of a list with commas, of numbers or names; empty for an empty one. Raises ValueError for another name."""
    known = {name.lower(): label for label, name in enumerate(names)}
    labels = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        if not part.isdecimal() and part.lower() not in known:
            raise ValueError(f"{part!r} is the name of no class: write it as in the list above, or its number")
        labels.append(known[part.lower()] if part.lower() in known else int(part))
    return labels


def classes_of(preset: str, count: int) -> list[int]:
    """Labels of a preset; of "all over", and of models that are not of a thousand classes, some from all over."""
    if preset in PRESETS and count == 1000:
        return list(PRESETS[preset])
    shown = count if count <= 10 else 4
    return [count * i // shown for i in range(shown)]


def batch_size(pipe: Any, chip: Chip, height: int, width: int) -> int:
    """Images at a time that the chip should hold, 1 to 64, in pixels of this size: an estimate on the safe side."""
    import jax

    config, tokens = pipe.config, pipe.config.num_tokens(height, width)
    image = 2 * 3 * config.least_activations(1, height, width)  # with guidance; a block holds three times the least
    if not (chip.has_bfloat16 and config.model.dtype == "bfloat16"):  # no fused kernel: logits are stored
        image += 2 * 2 * 4 * config.model.num_heads * tokens**2
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(pipe.params))
    decoder = 0 if pipe.vae is None else 3.5 * _GIB * height * width / 2**20
    room = 0.8 * chip.memory - weights - decoder
    return max(1, min(64, int(room / image)))


def save_pictures(images_of: Mapping[tuple[int, int], Any], sheet: Any, path: Path) -> Path:
    """Writes a zip of the sheet and of each image, named by its size and number: images uint8 [N, h, w, C] by size."""
    from PIL import Image

    with zipfile.ZipFile(path, "w") as archive:
        pictures = {"sheet.png": sheet}
        for (height, width), images in images_of.items():
            for index, image in enumerate(images):
                shown = image[..., 0] if image.shape[-1] == 1 else image
                pictures[f"{height}x{width}/{index:03d}.png"] = Image.fromarray(shown)
        for name, picture in pictures.items():
            buffer = io.BytesIO()
            picture.save(buffer, format="PNG")
            archive.writestr(name, buffer.getvalue())
    return path.absolute()


def upload_pictures(folder: Path = Path("uploaded")) -> Path:
    """Asks for pictures in the browser, which works at Colab alone."""
    from google.colab import files

    folder.mkdir(exist_ok=True)
    for name, content in files.upload().items():
        (folder / Path(name).name).write_bytes(content)
    return folder


def draw_letters(folder: Path, letter: str = "A", count: int = 10) -> Path:
    """Pictures in the place of one's own: a letter, each turned and moved a bit."""
    from PIL import Image, ImageDraw, ImageFont

    folder.mkdir(exist_ok=True)
    for index in range(count):
        picture = Image.new("L", (64, 64))
        place = 32 + index % 3 * 2 - 2, 32 + index % 4
        ImageDraw.Draw(picture).text(place, letter, 255, ImageFont.load_default(48), anchor="mm")
        picture.rotate(4 * index - 18, Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def fine_tune(checkpoint: str, folder: Path, workdir: Path, steps: int) -> Any:
    """A pipeline of the checkpoint's model of pixels, trained on for so many steps with a folder's pictures.

    workdir: is made anew, so that the cell can be run again.
    """
    from ledit_jax import LEDiTPipeline
    from ledit_jax.config import Config
    from ledit_jax.data.image_folder import ImageFolder
    from ledit_jax.training.loop import train
    from ledit_jax.weights import find_checkpoint, load_config

    config = load_config(find_checkpoint(checkpoint)).for_any_device()
    source = ImageFolder(str(folder))
    values = config.to_dict()
    values["model"] |= dict(num_classes=source.num_classes)
    values["data"] |= dict(source="image_folder", path=str(folder), flip=False)
    values["train"] |= dict(num_steps=steps, batch_size=min(32, len(source)), learning_rate=5e-4, ema_decay=0.98)
    values["train"] |= dict(
        warmup_steps=0, decay_steps=steps // 3, log_every=50, sample_every=0, checkpoint_every=steps
    )
    shutil.rmtree(workdir, ignore_errors=True)
    train(Config.from_dict(values), workdir, init_from=checkpoint)
    return LEDiTPipeline.from_checkpoint(workdir)
