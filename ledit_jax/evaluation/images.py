"""The images to judge, read in order and in batches: ADM's npz, a folder, or a data source at any size."""

import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data.catalog import make_source
from ledit_jax.data.image_folder import IMAGE_SUFFIXES, PILLOW_ERRORS, find_images
from ledit_jax.data.source import UnreadableRecord
from ledit_jax.data.transforms import center_crop, to_array, to_image, to_mode
from ledit_jax.errors import ConfigError, DataError
from ledit_jax.files import local_copy
from ledit_jax.files.readers import array_names, open_array, reading
from ledit_jax.parallel.memory import check_fits, host_memory

Size = tuple[int, int]
"""Height and width in pixels."""
_LOOKED_AT = 16
"""Images of a folder that are opened first, to see whether it has any colour."""


class Images(ABC):
    """`count` colour images of one size, in a fixed order."""

    def __init__(self, name: str, count: int, size: Size):
        self.name, self.count, self.size = name, count, size

    def batches(self, batch_size: int, start: int = 0) -> Iterator[UInt8[np.ndarray, "B H W 3"]]:
        """Images `start` to the last; the last batch may be smaller. Raises DataError for what cannot be read."""
        for first in range(start, self.count, batch_size):
            yield self._read(first, min(first + batch_size, self.count))

    @abstractmethod
    def _read(self, start: int, stop: int) -> UInt8[np.ndarray, "B H W 3"]:
        """Images start to stop - 1; calls come in ascending order."""

    @property
    def fingerprint(self) -> dict:
        """What tells this set from another one, or from itself after a change."""
        return {"name": self.name, "count": self.count, "size": list(self.size)}


def open_images(name: str, height: int | None = None, width: int | None = None) -> Images:
    """The set that a name stands for.

    x.npz: ADM's layout, `arr_0` uint8 [N, H, W, 3]. A folder: the images anywhere within, sorted by path, converted
    to RGB. "digits:SPLIT", "glyphs:SPLIT", "shapes:SPLIT" or "tfds:NAME:SPLIT": a data source. Height and
    width, in pixels, crop the images of a folder or of tfds as training does, and the other sources are drawn at that
    size. Raises ConfigError for a name or a size that cannot be, and DataError for images that are missing, damaged or
    of another layout.
    """
    if (height is None) != (width is None):
        raise ConfigError(f"height={height} and width={width}: give both, or neither to take images as they are")
    size = None if height is None else (height, width)
    if size and min(size) < 1:
        raise ConfigError(f"height={height} and width={width} must be positive numbers of pixels")
    if size:
        least = 3 * height * width  # of one image
        check_fits(f"height={height} and width={width}", least, host_memory() // 4, "use smaller images")
    path = Path(local_copy(name))
    source, *rest = name.split(":")
    if path.is_dir():
        return FolderImages(path, size)
    if source in ("digits", "glyphs", "shapes", "tfds") and not path.exists():
        return _open_source(name, source, rest, size)
    if not path.exists():
        raise DataError(
            f"{name} does not exist: give an .npz, a folder of images, or digits, glyphs, shapes, tfds:NAME:SPLIT"
        )
    if path.suffix != ".npz" or not path.is_file():  # opening a pipe waits for somebody to write to it
        raise DataError(f"{name} is neither a folder nor an .npz: give one of these")
    return NpzImages(path)


class NpzImages(Images):
    """ADM's layout, streamed from the archive."""

    def __init__(self, path: Path):
        self.path = path
        with reading(path), zipfile.ZipFile(path) as archive:
            if "arr_0" not in array_names(archive):
                held = ", ".join(n.removesuffix(".npy") for n in archive.namelist()[:8])
                raise DataError(f"{path} holds no images (arr_0), only {held}: ADM's layout has them in arr_0")
            with open_array(archive, "arr_0") as (_, header):
                self._is_fortran = header.is_fortran
        _check_layout(path, header.shape, header.dtype)
        super().__init__(str(path), header.shape[0], header.shape[1:3])

    def batches(self, batch_size: int, start: int = 0) -> Iterator[UInt8[np.ndarray, "B H W 3"]]:
        """As `Images.batches`; the archive is open for as long as this runs."""
        if self._is_fortran:
            raise DataError(f"{self.path}: arr_0 is stored in Fortran order: save numpy.ascontiguousarray of it")
        with reading(self.path), zipfile.ZipFile(self.path) as archive, open_array(archive, "arr_0") as (member, _):
            self._skip(member, start)
            self._member = member
            yield from super().batches(batch_size, start)

    def _skip(self, member, count: int) -> None:
        member.seek(count * self._image_bytes, os.SEEK_CUR)

    @property
    def _image_bytes(self) -> int:
        return self.size[0] * self.size[1] * 3

    def _read(self, start: int, stop: int) -> UInt8[np.ndarray, "B H W 3"]:
        wanted = (stop - start) * self._image_bytes
        data = self._member.read(wanted)
        if len(data) < wanted:
            raise DataError(f"{self.path} is cut short: it ends within image {start + len(data) // self._image_bytes}")
        return np.frombuffer(data, np.uint8).reshape(stop - start, *self.size, 3)

    @property
    def fingerprint(self) -> dict:
        stat = self.path.stat()
        return super().fingerprint | {"bytes": stat.st_size, "modified": stat.st_mtime_ns}


def _check_layout(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    found = f"{path}: arr_0 is {dtype} {list(shape)}"
    if dtype != np.uint8:
        raise DataError(f"{found}, and must be uint8, 0 to 255: save the images as bytes")
    if len(shape) == 3 or (len(shape) == 4 and shape[-1] == 1):
        raise DataError(f"{found}, grey images, and must be [N, height, width, 3]: repeat the grey in three channels")
    if len(shape) != 4 or shape[-1] != 3:
        advice = "transpose it (0, 2, 3, 1)" if len(shape) == 4 and shape[1] == 3 else "save it in that layout"
        raise DataError(f"{found}, and must be [N, height, width, 3]: {advice}")
    if not all(shape):
        raise DataError(f"{found} and holds no images")


class FolderImages(Images):
    """Every image anywhere in a folder, sorted by path, as RGB and cropped to `size` if that is given."""

    def __init__(self, root: Path, size: Size | None):
        self._files = sorted(map(Path, find_images(root)))
        if not self._files:
            raise DataError(f"{root} holds no images ({', '.join(IMAGE_SUFFIXES[:3])} and the like)")
        self._crop, self._root = size, root
        self._check_colour()
        super().__init__(str(root), len(self._files), size or self._load(self._files[0]).shape[:2])

    def _check_colour(self) -> None:
        places = np.linspace(0, len(self._files) - 1, min(_LOOKED_AT, len(self._files))).astype(int)
        modes = {self._open(self._files[place]).mode for place in places}
        if modes <= {"1", "L", "LA", "I", "I;16", "F"}:
            raise DataError(
                f"{self._root} holds grey images (mode {', '.join(sorted(modes))}), and the Inception network needs "
                "colour: save them with three equal channels if they are to be judged by it"
            )

    def _open(self, path: Path) -> Image.Image:
        try:
            with Image.open(path) as image:
                image.load()
                return image
        except PILLOW_ERRORS as error:
            raise DataError(f"{path} cannot be read ({error}): repair or remove it") from error

    def _load(self, path: Path) -> UInt8[np.ndarray, "H W 3"]:
        image = self._open(path)
        try:
            return _colour(ImageOps.exif_transpose(image), self._crop)
        except PILLOW_ERRORS as error:
            raise DataError(f"{path} cannot be read ({error}): repair or remove it") from error

    def _read(self, start: int, stop: int) -> UInt8[np.ndarray, "B H W 3"]:
        images = [self._load(path) for path in self._files[start:stop]]
        for path, image in zip(self._files[start:stop], images, strict=True):
            if image.shape[:2] != self.size:
                height, width = image.shape[:2]
                raise DataError(
                    f"{path} is {height}x{width} and {self._files[0].name} {self.size[0]}x{self.size[1]} (height x "
                    "width): give a height and a width to crop all to one size"
                )
        return np.stack(images)

    @property
    def fingerprint(self) -> dict:
        newest = max(path.stat().st_mtime_ns for path in self._files)
        return super().fingerprint | {"modified": newest}


def _colour(image: Image.Image, size: Size | None) -> UInt8[np.ndarray, "H W 3"]:
    image = to_mode(image, 3)
    return to_array(center_crop(image, *size) if size else image, 3)


class SourceImages(Images):
    """The images of a data source of training, at one size."""

    def __init__(self, name: str, source, size: Size):
        self._source = source
        super().__init__(name, len(source), size)

    def _read(self, start: int, stop: int) -> UInt8[np.ndarray, "B H W 3"]:
        try:
            images = (self._source[index]["image"] for index in range(start, stop))
            return np.stack([i if i.shape[:2] == self.size else _colour(to_image(i), self.size) for i in images])
        except UnreadableRecord as error:
            raise DataError(f"{self.name}: {error}") from error


def _open_source(name: str, source: str, rest: list[str], size: Size | None) -> SourceImages:
    if source == "tfds" and len(rest) != 2:
        raise ConfigError(f"{name}: name the data set and the split, as in tfds:imagenet2012:validation")
    if source != "tfds" and len(rest) > 1:
        raise ConfigError(f"{name}: after {source} comes at most a split, as in {source}:test")
    if size is None:
        raise ConfigError(f"{name} has no size of its own: give a height and a width")
    split, data_set = rest[-1] if rest else "train", rest[0] if source == "tfds" else ""
    data = DataConfig(source=source, name=data_set, split=split, image_height=size[0], image_width=size[1])
    return SourceImages(name, make_source(data, AutoencoderConfig()), size)
