"""Photographs for the study: class folders, or a zip of them, parted into images for training and held-out ones."""

import csv
import functools
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from experiments.study.images import MAX_REAL, Samples
from ledit_jax.data.image_folder import ImageFolder
from ledit_jax.data.transforms import center_crop, to_array, to_image
from ledit_jax.errors import ConfigError, DataError
from ledit_jax.progress import progress_bar

HELD_OUT_EVERY = 6
_MANY = 1_000


def split_images(source: Path, folder: Path) -> Path:
    """Makes `folder` with the image folders train and test inside, tables of labels over folder/all; returns `folder`.

    source: a folder of class folders, which folder/all then points to, or a zip of such, which is unpacked there. Of
    each class's images, in sorted order, every sixth is held out. A folder that is there already is kept: it is
    made aside and renamed, so it is whole. Raises DataError for what holds no class folders with images.
    """
    if folder.exists():
        return folder
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    if source.is_dir():
        (aside / "all").symlink_to(source.absolute())
    else:
        _unpack(source, aside / "all")
    images = ImageFolder(str(aside / "all"))
    few = [label for label, count in Counter(label for _, label in images.entries).items() if count < HELD_OUT_EVERY]
    if few:
        raise DataError(f"images={source}: class {few[0]} has fewer than {HELD_OUT_EVERY} images: add some")
    _write_tables(images.entries, aside)
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
            record = source[index]
            smallest = min(record["image"].shape[:2])
            if max(height, width) > smallest:
                raise ConfigError(
                    f"size {height}x{width} is larger than the real images ({smallest} pixels a side): there is "
                    "nothing to compare with, leave it out"
                )
            images.append(to_array(center_crop(to_image(record["image"]), height, width), channels))
            labels.append(record["label"])
            bar.update()
    return Samples(np.stack(images), np.array(labels))


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as images:
            members = images.infolist()
            with progress_bar("unpack", len(members), "file", disable=len(members) < _MANY) as bar:
                for member in members:
                    images.extract(member, folder)  # zipfile keeps names that would lead out of the folder inside it
                    bar.update()
    except (zipfile.BadZipFile, OSError) as error:
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
