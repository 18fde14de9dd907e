"""What a repository holds that is of use here: told from the names of its files, before any is fetched."""

import re
from collections.abc import Iterable
from pathlib import Path

from ledit_jax.errors import CheckpointError
from ledit_jax.files.readers import read_json

LIBRARY = "ledit_jax"
_FORMATS = (
    re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors(\.index\.json)?"),
    re.compile(r"(diffusion_pytorch_model|pytorch_model)(-\d+-of-\d+)?\.bin(\.index\.json)?"),
)
"""Files of weights; the first kind that is there is taken, and no others in narrower types."""
_NOTES = ("model_index.json", "config.json", "README.md", "tokenizer.json", "tokenizer_config.json", "vocab.json")
_NOTES += ("merges.txt", "special_tokens_map.json")
_PARTS = ("", "transformer", "vae", "text_encoder", "tokenizer")
_NETWORKS = {
    *("DiTTransformer2DModel", "Transformer2DModel", "SiTTransformer2DModel", "SD3Transformer2DModel"),
    *("AutoencoderKL", "AutoencoderDC", "CLIPModel", "CLIPTextModel", "CLIPTextModelWithProjection"),
}


def choose_files(files: Iterable[str], path: str, name: object) -> list[str]:
    """Those that are needed of a repository's files, in it or in its folder `path`, which may be a file itself.

    Raises CheckpointError for a repository without weights of a kind that we read; name: of it, for the message.
    """
    files = sorted(files)
    if path in files:
        return [path]
    root = f"{path}/" if path else ""
    here = [file.removeprefix(root) for file in files if file.startswith(root)]
    chosen = {part: _choose_in(here, part) for part in _PARTS}
    if "model_index.json" in here:
        chosen[""] = []  # the pipeline's own weights once more, as one file
    if not (chosen[""] or chosen["transformer"]):
        there = ", ".join(dict.fromkeys(file.partition("/")[0] for file in here)) or "nothing"
        raise CheckpointError(
            f"{name} holds no weights of a DiT, an autoencoder or CLIP by the names of diffusers and transformers: it "
            f"has {there[:200]}"
        )
    notes = [file for part in _PARTS for file in here if _split(file)[0] == part and _split(file)[1] in _NOTES]
    return [root + file for file in [*notes, *(file for names in chosen.values() for file in names)]]


def are_notes(files: Iterable[str]) -> list[str]:
    """Those that are small, and say what the others are."""
    return [file for file in files if _split(file)[1] in _NOTES]


def check_class(folder: Path, name: object) -> None:
    """Raises CheckpointError for a folder whose config.json is of another network than those that we read."""
    for config in (folder / "transformer" / "config.json", folder / "config.json"):
        if config.is_file():
            said = read_json(config)
            if said.get("library_name") == LIBRARY:
                return
            architectures = said.get("architectures")
            classes = [said.get("_class_name"), *(architectures if isinstance(architectures, list) else [])]
            named = {text for text in classes if isinstance(text, str)}
            if named and not named & _NETWORKS:
                raise CheckpointError(f"{name} is a {', '.join(sorted(named))[:80]}, and no DiT: see docs/porting.md")
            return


def has_weights(folder: Path) -> bool:
    """Whether a folder on the disk holds weights itself."""
    return folder.is_dir() and any(form.fullmatch(file.name) for file in folder.iterdir() for form in _FORMATS)


def find_lacking(source: Path) -> str | None:
    """What a download lacks that was interrupted: a part that its index names, or all weights. It may be a file."""
    index = source / "model_index.json"
    if index.is_file():
        parts = [part for part in ("transformer", "vae") if read_json(index).get(part)] or ["transformer"]
        return next((f"{part}/..." for part in parts if not has_weights(source / part)), None)
    is_there = source.is_file() or has_weights(source) or has_weights(source / "transformer")
    return None if is_there else "weights"


def _choose_in(files: list[str], part: str) -> list[str]:
    for form in _FORMATS:
        found = [file for file in files if _split(file)[0] == part and form.fullmatch(_split(file)[1])]
        if found:
            return found
    return []


def _split(file: str) -> tuple[str, str]:
    folder, _, name = file.rpartition("/")
    return folder, name
