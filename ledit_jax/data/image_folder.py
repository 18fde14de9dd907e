"""A folder of images: one sub-folder per class, or any arrangement with a table of labels."""

import contextlib
import csv
import hashlib
import logging
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from ledit_jax.data.source import UnreadableRecord
from ledit_jax.data.transforms import center_crop, to_array, to_mode
from ledit_jax.errors import DataError
from ledit_jax.files.bucket import as_place, folders_in, reaching

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_TABLE = "labels.csv"
_LOG = logging.getLogger(__name__)
_LOOKED_AT = 256
"""Files whose sizes are part of the fingerprint: of a million, looking at all takes minutes on some disks."""
_MEASURED = 64
"""Files that are opened to see whether the images are large enough."""
_MOST_LABELS = 2**31
# What Pillow raises for files that are missing, cut short, damaged, or no images at all.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, MemoryError, struct.error, Image.DecompressionBombError)


class ImageFolder:
    """Images of a folder, read when asked for.

    With a `labels.csv` at its top, each row is `file,label`: a path within the folder and an integer from 0 (a first
    row that reads exactly so is a heading). Without one, each sub-folder is a class, labels count the sub-folders in
    sorted order, and the images are those anywhere within, by suffix; with images at its top and no sub-folders, all
    are of one class. Names that start with a dot are passed over.

    An image is turned upright as its EXIF orientation says (ADM and DiT do not, and so see a few ImageNet images
    lying down), then converted to RGB (`channels` 3) or grey (1), and with a `size` (height, width) cropped to it by
    `center_crop`: here and not later, so that no more than the crop is copied to an array. With `whole` it is left as
    large as it is, for random crops. Reading raises UnreadableRecord, naming the file.
    Building raises DataError for a folder that is missing or without images, a class without images, a row that
    cannot be understood, and images all smaller than `size`, as far as some tell; a part of them is enlarged.
    """

    def __init__(self, path: str, channels: int = 3, size: tuple[int, int] | None = None, whole: bool = False):
        root = Path(path)
        if not path or not root.is_dir():
            raise DataError(f"data.path={path!r} is not a folder: give the folder that holds the images")
        self._root, self._channels, self._size = path, channels, None if whole else size
        if (root / _TABLE).is_file():
            self._files, self._labels = _read_table(root / _TABLE)
            self.num_classes = max(self._labels) + 1
        else:
            self._files, self._labels = _read_classes(root)
            self.num_classes = self._labels[-1] + 1
        if size:
            _check_sizes(root, self._files, size)

    @property
    def entries(self) -> list[tuple[str, int]]:
        """(path within the folder, label) of every image, in the order of the indices."""
        return list(zip(self._files, self._labels, strict=True))

    @property
    def fingerprint(self) -> str:
        """What tells these images from others: every name and label, and the sizes of files spread over all."""
        return files_fingerprint(self._root, self._files, self._labels)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict:
        image = read_image(os.path.join(self._root, self._files[index]), self._channels, self._size)
        return {"image": image, "label": self._labels[index]}


def read_image(path: str, channels: int, size: tuple[int, int] | None) -> UInt8[np.ndarray, "H W C"]:
    """A file's image as `ImageFolder` gives it. Raises UnreadableRecord."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe waits for somebody to write to it
            raise OSError("it is no regular file")
        with Image.open(path) as opened:
            ImageOps.exif_transpose(opened, in_place=True)
            shown = to_mode(opened, channels)
            return to_array(center_crop(shown, *size) if size else shown, channels)
    except PILLOW_ERRORS as error:
        raise UnreadableRecord(f"{path}: {error}") from error


def files_fingerprint(root: str, files: Sequence[str], told: Sequence[Any]) -> str:
    """Of files below `root` and what is told of each: all of that, and the sizes of some, evenly spread."""
    some = files[:: -(-len(files) // _LOOKED_AT)]
    text = repr((files, told, [_file_size(os.path.join(root, file)) for file in some]))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _file_size(path: str) -> int:
    """In bytes; -1 for a file that is not there."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _read_table(table: Path) -> tuple[list[str], list[int]]:
    files, labels = [], []
    for number, row in enumerate(_rows(table), start=1):
        if not row or (number == 1 and row == ["file", "label"]):
            continue
        label = row[-1].strip()
        if len(row) != 2 or not label.isdecimal() or "\0" in row[0]:
            raise DataError(f"{table} line {number} is {','.join(row)!r:.100}: write file,label with a label from 0")
        if len(label) > 10 or int(label) >= _MOST_LABELS:
            raise DataError(f"{table} line {number}: label {label:.40} is too large, labels are less than 2^31")
        files.append(row[0])
        labels.append(int(label))
    if not files:
        raise DataError(f"{table} names no images: write one line file,label for each")
    return files, labels


def _rows(table: Path) -> list[list[str]]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as stream:
            return list(csv.reader(stream))
    except OSError as error:
        raise DataError(f"{table} cannot be read ({error.strerror or error}): check the place") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{table} is no table in UTF-8 ({error}): save it as CSV in that encoding") from error


def class_folders(path: str) -> list[str]:
    """Names of the sub-folders that are classes, in the order of their labels; none for a folder that is not there."""
    with reaching(path):
        if not path or (as_place(path) / _TABLE).is_file():
            return []
    return [name for name in folders_in(path) if not name.startswith(".")]


def _read_classes(root: Path) -> tuple[list[str], list[int]]:
    classes = class_folders(str(root))
    loose = sorted(e.name for e in os.scandir(root) if e.is_file() and _is_image(e.name))
    if not classes:
        if not loose:
            raise DataError(f"data.path={str(root)!r} has neither images, nor class folders, nor a {_TABLE}")
        return loose, [0] * len(loose)
    if loose:
        _LOG.warning("left out, since they lie beside the class folders of %s: %d images", root, len(loose))
    files, labels = [], []
    for label, name in enumerate(classes):
        found = _find_images(root, name)
        if not found:
            raise DataError(f"class folder {str(root / name)!r} has no images: fill it or remove it")
        files += found
        labels += [label] * len(found)
    return files, labels


def _find_images(root: Path, name: str) -> list[str]:
    """Sorted paths, relative to `root`, of the images anywhere under root/name."""
    return sorted(os.path.relpath(path, root) for path in find_images(root / name, seen=(root,)))


def find_images(folder: Path, seen: tuple[Path, ...] = ()) -> Iterator[str]:
    """Paths of the images anywhere in a folder, by suffix, links followed; what starts with a dot is passed over.

    Each real folder is gone through once, so links that lead in a circle end, and none of `seen` is. What is no
    regular file, such as a pipe, is named in the log and left out.
    """
    known = {(stat.st_dev, stat.st_ino) for stat in map(os.stat, seen)}
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        place = os.stat(here)
        if (place.st_dev, place.st_ino) in known:
            continue
        known.add((place.st_dev, place.st_ino))
        for entry in sorted(os.scandir(here), key=lambda entry: (entry.is_symlink(), entry.name), reverse=True):
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry.path):  # the entry's own method raises for a link to itself
                waiting.append(entry.path)
            elif _is_image(entry.name):
                if os.path.isfile(entry.path) or not os.path.exists(entry.path):  # a dead link is said when it is read
                    yield entry.path
                else:
                    _LOG.warning("left out, since it is no regular file: %s", entry.path)


def _check_sizes(root: Path, files: list[str], size: tuple[int, int]) -> None:
    """Of some files, those that can be read, whether they cover the crop, lying down or upright."""
    found = []
    for file in files[:: -(-len(files) // _MEASURED)]:
        with contextlib.suppress(*PILLOW_ERRORS):
            path = os.path.join(root, file)
            if os.path.isfile(path):  # opening a pipe would wait
                with Image.open(path) as image:
                    found.append(image.size)
    small = [sides for sides in found if min(sides) < min(size) or max(sides) < max(size)]
    if small and len(small) == len(found):
        width, height = max(small)
        raise DataError(
            f"data.image_height={size[0]} and data.image_width={size[1]} are more than the images of "
            f"data.path={str(root)!r} have, the largest of {len(small)} is {height}x{width}: train at a smaller size, "
            "or enlarge them yourself"
        )
    if small:
        share = len(small) / len(found)
        _LOG.warning(f"{share:.0%} of the images are smaller than {size[0]}x{size[1]}, and are enlarged")


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
