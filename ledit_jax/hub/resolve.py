"""From whatever a checkpoint is called to a folder of ours, converted once where it is another's."""

import dataclasses
import logging
import os
import re
from pathlib import Path
from urllib.parse import quote

from ledit_jax.data.class_names import imagenet_names
from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.files import is_bucket, write_whole
from ledit_jax.files.once import made_once
from ledit_jax.hub.bucket import fetch_bucket
from ledit_jax.hub.contents import are_notes, check_class, choose_files, find_lacking
from ledit_jax.hub.converting import convert_all
from ledit_jax.hub.dit_files import fetch_dit_file
from ledit_jax.hub.names import DIT_FILES, HubName, parse
from ledit_jax.hub.snapshot import Access, Unreachable, download, find_downloaded, list_files
from ledit_jax.weights.about import About
from ledit_jax.weights.checksums import digest

logger = logging.getLogger(__name__)

_WEIGHTS = (".pt", ".ckpt", ".bin", ".safetensors")
_COMMIT = re.compile("[0-9a-f]{40}")
_DIT = About(autoencoder="hf://stabilityai/sd-vae-ft-ema", license="cc-by-nc-4.0")
"""Of the weights that DiT's authors released for ImageNet's classes, with the autoencoder that their sampling takes."""


def resolve(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    bare: bool = False,
) -> str:
    """The folder of a checkpoint of ours, which every other function here takes.

    name: hf://org/name, hf://org/name@revision or hf://org/name/folder of the hub; DiT-XL-2-256x256.pt or
    DiT-XL-2-512x512.pt, as DiT's authors released them; a folder of diffusers' or transformers' or a file of PyTorch's
    on the disk; a workdir of ours in a bucket, gs://bucket/run, which is copied; anything else is taken for one of our
    checkpoints and returned as it is. bare: org/name is one of the hub too, unless a folder is called so.

    The first call fetches what is needed and converts it; later ones find it, by its commit, and need no network. Asked
    for a branch, the hub is asked which commit it is at, and the last known one is taken where it does not answer.
    token: by default that of HF_TOKEN or of a login. cache_dir: by default where HF_HOME says. Raises CheckpointError
    for a name that is unknown or holds no weights that we read, and OutputError for a cache that cannot be written.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise CheckpointError(f"{name!r:.60} is no name of a checkpoint: give a folder, or org/name of the hub")
    access = Access(token, None if cache_dir is None else str(cache_dir), local_files_only)
    if found := parse(name, revision, bare=bare):
        return str(_from_hub(found, access))
    if revision is not None:
        raise ConfigError(f"revision={revision} is for a model of the hub, and {name!s:.200} is none")
    if is_bucket(name):
        return str(fetch_bucket(str(name), access.converted))
    path = Path(name)
    if not str(name):
        return ""
    if str(name) in DIT_FILES and not path.exists():
        return str(_from_dit_file(str(name), access))
    if _is_foreign(path):
        return str(_from_disk(path, access))
    return str(name)


def _from_hub(name: HubName, access: Access) -> Path:
    cache = access.converted / name.repo.replace("/", "--")
    try:
        if _COMMIT.fullmatch(name.revision) and (place := _place(cache, name, name.revision)).is_dir():
            return place
        commit, files, said = list_files(name, access)
    except Unreachable as reason:
        return _from_cache(name, cache, str(reason), access)
    chosen = choose_files(files, name.path, name)
    about = About(origin=f"hf://{name.repo}@{commit}", license=said or _license_of(name))

    def make(aside: Path) -> None:
        try:
            check_class(download(name, name.revision, are_notes(chosen), access) / name.path, name)
            source = download(name, commit, chosen, access) / name.path
        except Unreachable as error:
            raise CheckpointError(f"{name} was not fetched to its end ({error}): run it again, it goes on") from error
        convert_all(source, aside, name, about)

    place = made_once(_place(cache, name, commit), make)
    write_whole(_reference(cache, name), commit)
    return place


def _from_cache(name: HubName, cache: Path, reason: str, access: Access) -> Path:
    """Without a network: what was converted, or else downloaded, before."""
    reference = _reference(cache, name)
    if reference.is_file() and (place := _place(cache, name, reference.read_text().strip())).is_dir():
        logger.warning("%s: no answer from the hub (%s), taking what is in the cache", name, reason)
        return place
    advice = f"{name} is not in the cache, and the hub does not answer ({reason}): connect, or give a folder"
    try:
        snapshot = find_downloaded(name, access)
    except Unreachable as error:
        raise CheckpointError(advice) from error
    source = snapshot / name.path
    if lacks := find_lacking(source):
        raise CheckpointError(
            f"{name} is in the cache only in part (no {lacks}), and the hub does not answer ({reason}): connect, and "
            "run it again"
        )
    about = About(origin=f"hf://{name.repo}@{snapshot.name}", license=_license_of(name))
    check_class(source, name)
    return made_once(_place(cache, name, snapshot.name), lambda aside: convert_all(source, aside, name, about))


def _from_dit_file(name: str, access: Access) -> Path:
    def make(aside: Path) -> None:
        source = fetch_dit_file(name, access.converted / "dit", access.local_files_only)
        convert_all(source, aside, name, dataclasses.replace(_DIT, origin=name, class_names=tuple(imagenet_names())))
        source.unlink()  # it is not needed any more

    return made_once(access.converted / "dit" / name.removesuffix(".pt"), make)


def _from_disk(path: Path, access: Access) -> Path:
    path = path.absolute()
    if path.is_file():
        files = [path]
    else:
        names = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
        files = [path / name for name in choose_files(names, "", path)]
        check_class(path, path)
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    about = About(origin=path.name, license=_DIT.license if path.name in DIT_FILES else "")
    place = access.converted / "disk" / f"{path.name}-{digest(stats)}"
    return made_once(place, lambda aside: convert_all(path, aside, path, about))


def _is_foreign(path: Path) -> bool:
    """Whether it is a file or a folder of PyTorch's. A checkpoint of ours has `config` as a folder."""
    if os.path.isfile(path):  # Path's own raises for a name that is too long
        return path.suffix in _WEIGHTS
    return any(os.path.isfile(path / name) for name in ("model_index.json", "config.json"))


def _license_of(name: HubName) -> str:
    return _DIT.license if name.repo.startswith("facebook/DiT-") else ""


def _place(cache: Path, name: HubName, commit: str) -> Path:
    return cache / f"{commit}{'--' if name.path else ''}{name.path.replace('/', '--')}"


def _reference(cache: Path, name: HubName) -> Path:
    return cache / "refs" / quote(name.revision, safe="")
