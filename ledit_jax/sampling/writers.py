"""Where samples go: one grid, one PNG each, or the npz of ADM's evaluation; chosen by the name given to --out.

All of them write aside and rename at the end, so that a file with the final name is whole.
"""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ledit_jax.errors import ConfigError


@runtime_checkable
class SampleWriter(Protocol):
    """Takes batches of images in order."""

    def write(self, images: UInt8[np.ndarray, "B H W C"]) -> None:
        """Appends a batch."""

    def close(self) -> None:
        """Finishes: what was asked for is there when this returns."""


def make_writer(out: str | Path, num_samples: int, columns: int, overwrite: bool) -> SampleWriter:
    """The writer for a path: x.png a grid, x.npz ADM's layout, anything without a suffix a folder of PNGs.

    Raises ConfigError for another suffix, a path that exists (unless `overwrite`) or one that cannot be written.
    """
    out = Path(out)
    check_out(out, overwrite)
    aside = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove(aside)
        if out.suffix == ".npz":
            return NpzWriter(out, aside, num_samples)
        return GridWriter(out, columns) if out.suffix == ".png" else FolderWriter(out, aside)
    except OSError as error:
        raise ConfigError(f"--out={out} cannot be written ({error.strerror}): choose another place") from error


def check_out(out: Path, overwrite: bool) -> None:
    """Raises ConfigError for a name that `make_writer` has no writer for, or that exists, unless `overwrite`."""
    if out.suffix not in ("", ".png", ".npz"):
        raise ConfigError(f"--out={out} has an unknown ending: use .png (grid), .npz (ADM's layout) or a folder name")
    if out.exists() and not overwrite:
        raise ConfigError(f"--out={out} exists already: choose another name or add --overwrite")


def recipe_path(out: str | Path) -> Path:
    """Where the recipe of samples lies: x.npz and a folder x have x.recipe.json beside them."""
    path = Path(out)
    return path.with_name(f"{path.name.removesuffix('.npz')}.recipe.json")


class GridWriter:
    """One PNG with all images, row by row."""

    def __init__(self, out: Path, columns: int):
        self.out, self.columns, self.batches = out, columns, []
        if not os.access(out.parent, os.W_OK):
            raise PermissionError(13, "permission denied")

    def write(self, images: UInt8[np.ndarray, "B H W C"]) -> None:
        """Keeps a batch for the grid."""
        self.batches.append(images)

    def close(self) -> None:
        """Draws the grid."""
        grid = image_grid(np.concatenate(self.batches), self.columns)
        aside = self.out.with_name(f".{self.out.name}.partial")
        to_image(grid).save(aside, format="PNG")
        aside.replace(self.out)


class FolderWriter:
    """One PNG for each image, named by its index."""

    def __init__(self, out: Path, aside: Path):
        self.out, self.aside, self.count = out, aside, 0
        aside.mkdir()

    def write(self, images: UInt8[np.ndarray, "B H W C"]) -> None:
        """Writes each image of a batch."""
        for image in images:
            to_image(image).save(self.aside / f"{self.count:06d}.png")
            self.count += 1

    def close(self) -> None:
        """Moves the folder to its place."""
        _remove(self.out)
        self.aside.rename(self.out)


class NpzWriter:
    """ADM's layout: `arr_0`, uint8 NHWC, written batch by batch; no more than one batch is held in memory."""

    def __init__(self, out: Path, aside: Path, num_samples: int):
        self.out, self.aside, self.num_samples = out, aside, num_samples
        self.archive, self.member = zipfile.ZipFile(aside, "w"), None

    def write(self, images: UInt8[np.ndarray, "B H W C"]) -> None:
        """Appends a batch; grey images are written with three equal channels, as ADM's script wants them."""
        images = np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3)))
        if self.member is None:
            self.member = self.archive.open("arr_0.npy", "w", force_zip64=True)
            header = {"descr": "|u1", "fortran_order": False, "shape": (self.num_samples, *images.shape[1:])}
            np.lib.format.write_array_header_2_0(self.member, header)
        self.member.write(images.tobytes())

    def close(self) -> None:
        """Finishes the archive and moves it to its place."""
        self.member.close()
        self.archive.close()
        self.aside.replace(self.out)


def image_grid(images: UInt8[np.ndarray, "N H W C"], columns: int, pad: int = 2) -> UInt8[np.ndarray, "GH GW C"]:
    """Images row by row in a grid of `columns`, with `pad` pixels of mid-grey between and around them."""
    count, H, W, C = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    grid = np.full((rows * (H + pad) + pad, columns * (W + pad) + pad, C), 128, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (H + pad) + pad, index % columns * (W + pad) + pad
        grid[top : top + H, left : left + W] = image
    return grid


def to_image(image: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    """Grey or colour, by the number of channels."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
