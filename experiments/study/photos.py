"""Photographs for the study: class folders, or a zip of them, parted into images for training and held-out ones."""

import csv
import functools
import hashlib
import logging
import shutil
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from experiments.study.images import MAX_REAL, Samples
from ledit_jax.data.image_folder import IMAGE_SUFFIXES, ImageFolder
from ledit_jax.data.source import UnreadableRecord
from ledit_jax.data.transforms import center_crop, to_array, to_image
from ledit_jax.errors import ConfigError, DataError
from ledit_jax.files import write_json
from ledit_jax.files.readers import ARRAY_ERRORS, read_json
from ledit_jax.progress import progress_bar

logger = logging.getLogger(__name__)
HELD_OUT_EVERY = 6
_MANY = 1_000
_NOTE = "source.json"
_MOST_BYTES = 2**30


def split_images(source: Path, folder: Path) -> Path:
    """Makes `folder` with the image folders train and test inside, tables of labels over folder/all; returns `folder`.

    source: a folder of class folders, which folder/all then points to, or a zip of such, which is unpacked there. Of
    each class's images, in sorted order, every sixth is held out. A folder that is there already is kept: it is
    made aside and renamed, so it is whole. Raises DataError for what holds no class folders with images.
    """
    if folder.exists():
        note = folder / _NOTE
        if note.is_file() and source.exists() and read_json(note) != {"images": _fingerprint(source)}:
            raise DataError(
                f"images={source} are not those that {folder} was made of: give the same, or another workdir"
            )
        return folder
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    if source.is_dir():
        (aside / "all").symlink_to(source.absolute())
    else:
        _unpack(source, aside / "all")
    try:
        images = ImageFolder(str(aside / "all"))
    except DataError as error:  # which speaks of a place that its user does not know
        reason = str(error).replace(str(aside / "all"), str(source))
        raise DataError(f"images={source} cannot be used ({reason}): give class folders, or a zip of them") from error
    few = [label for label, count in Counter(label for _, label in images.entries).items() if count < HELD_OUT_EVERY]
    if few:
        raise DataError(f"images={source}: class {few[0]} has fewer than {HELD_OUT_EVERY} images: add some")
    _write_tables(images.entries, aside)
    write_json(aside / _NOTE, {"images": _fingerprint(source)})
    aside.rename(folder)
    return folder


@functools.cache
def real_photographs(
    folder: Path, channels: int, height: int, width: int, split: str, most: int | None = MAX_REAL
) -> Samples:
    """Images of a split, evenly over its classes, cut and reduced to a size as training does it."""
    source = ImageFolder(str(folder / split), channels)
    count = len(source) if most is None else min(len(source), most)
    images, labels = [], []
    with progress_bar(f"read {split} {height}x{width}", count, "image", disable=count <= MAX_REAL) as bar:
        for index in np.linspace(0, len(source) - 1, count).astype(int).tolist():
            try:
                record = source[index]
            except UnreadableRecord as error:
                logger.warning(f"left out, since it cannot be read: {error}")
                bar.update()
                continue
            smallest = min(record["image"].shape[:2])
            if max(height, width) > smallest:
                raise ConfigError(
                    f"size {height}x{width} is larger than the real images ({smallest} pixels a side): there is "
                    "nothing to compare with, leave it out"
                )
            images.append(to_array(center_crop(to_image(record["image"]), height, width), channels))
            labels.append(record["label"])
            bar.update()
    if not images:
        raise DataError(f"{folder / split} has no image that can be read: give others")
    return Samples(np.stack(images), np.array(labels))


def _fingerprint(source: Path) -> str:
    """Of a folder, its images' names and sizes; of a zip, its directory, which has a checksum of each file."""
    if source.is_dir():
        return ImageFolder(str(source)).fingerprint
    try:
        with zipfile.ZipFile(source) as archive:
            members = [(member.filename, member.file_size, member.CRC) for member in archive.infolist()]
    except (zipfile.BadZipFile, *ARRAY_ERRORS) as error:
        raise DataError(f"images={source} cannot be unpacked ({error}): give a zip of class folders") from error
    return hashlib.sha256(repr(members).encode(errors="surrogateescape")).hexdigest()[:16]


def _extract(images: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    """One file, if it is an image and whole. zipfile keeps names that would lead out of the folder inside it."""
    if not member.filename.lower().endswith((*IMAGE_SUFFIXES, "labels.csv")):
        return
    try:
        if member.file_size > _MOST_BYTES:
            raise ValueError(f"{member.file_size} bytes are no image")
        images.extract(member, folder)
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, zlib.error) as error:
        logger.warning(f"left out, since it cannot be unpacked: {member.filename} ({error})")
        (folder / member.filename).unlink(missing_ok=True)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as images:
            members = images.infolist()
            with progress_bar("unpack", len(members), "file", disable=len(members) < _MANY) as bar:
                for member in members:
                    _extract(images, member, folder)
                    bar.update()
    except (zipfile.BadZipFile, *ARRAY_ERRORS) as error:
        raise DataError(f"images={archive} cannot be unpacked ({error}): give a zip of class folders") from error


def _write_tables(entries: list[tuple[str, int]], folder: Path) -> None:
    """labels.csv of both parts, with paths from there."""
    parts: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    seen: Counter[int] = Counter()
    for file, label in entries:
        seen[label] += 1
        parts["train" if seen[label] % HELD_OUT_EVERY else "test"].append((f"../all/{file}", label))
    for part, rows in parts.items():
        (folder / part).mkdir()
        with open(folder / part / "labels.csv", "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("file", "label"), *rows])
