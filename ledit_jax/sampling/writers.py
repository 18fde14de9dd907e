"""Where samples go: one grid, one PNG each, or the npz of ADM's evaluation; chosen by the name of the output.

All of them write aside and rename at the end, so that what has the final name is whole.
"""

import contextlib
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ledit_jax.data.transforms import to_image
from ledit_jax.errors import ConfigError, OutputError
from ledit_jax.files import Place, as_place, check_place, is_bucket, recipe_path, written_aside
from ledit_jax.files.bucket import BUCKETS, reaching
from ledit_jax.sampling.sheets import image_grid

PROMPTS_FILE = "prompts.txt"
_LONGEST = 200
"""Of a name, in bytes: file systems take 255, and files beside it have longer ones."""
_IN_FOLDER = re.compile(r"\d{6,}\.png|prompts\.txt")
Write = Callable[[UInt8[np.ndarray, "B H W C"]], None]
"""Appends a batch of images."""


@contextlib.contextmanager
def open_writer(
    out: str | Place, num_samples: int, columns: int, overwrite: bool, prompts: Sequence[str] | None = None
) -> Iterator[Write]:
    """A function that takes batches of images in order; when the block is done, `out` is there, with all of them.

    x.png is a grid of `columns`, x.npz has ADM's layout, and a name without a suffix is a folder of PNGs. prompts: what
    each image was drawn from, for the array `prompts` of an npz, or prompts.txt in a folder, one a line. Raises
    ConfigError for another suffix, and OutputError for a place that exists (unless `overwrite`) or cannot be written.
    """
    check_out(out, overwrite)
    with written_aside(as_place(out)) as aside:
        if Path(out).suffix == ".npz":
            writer = _write_npz(aside, num_samples, prompts)
        else:
            writer = _write_grid(aside, columns) if Path(out).suffix == ".png" else _write_folder(aside, prompts)
        with writer as write:
            yield write


def check_out(out: str | Place, overwrite: bool) -> None:
    """Raises ConfigError for a name that has no writer, and OutputError for one that exists, unless `overwrite`.

    What is overwritten is a file with the suffix asked for, or a folder that holds samples alone with a recipe beside.
    """
    out = as_place(out)
    check_name(out)
    with reaching(out, OutputError):
        if not (out.exists() if is_bucket(out) else os.path.lexists(out)):
            return
    if not overwrite:
        raise OutputError(f"out={out} exists already: choose another name, or set overwrite")
    if out.suffix and not out.is_file():
        raise OutputError(f"out={out} is no file, and is not overwritten: choose another name")
    if not out.suffix and not _is_ours(out):
        raise OutputError(
            f"out={out} is no folder of samples ({recipe_path(out).name} beside it, images 000000.png and so on in "
            "it, and nothing else), and is not overwritten: choose another name, or remove it"
        )


def check_name(out: Place) -> None:
    """Raises ConfigError for a name that has no writer, or that no file can have."""
    if out.suffix not in ("", ".png", ".npz"):
        raise ConfigError(f"out={out} has an unknown ending: use .png (grid), .npz (ADM's layout) or a folder name")
    if out.name.strip() in ("", ".."):
        raise ConfigError(f"out={out} is a folder that is there, and no name for samples: give one inside it")
    check_place(out, BUCKETS)
    if is_bucket(out):
        return
    if len(os.fsencode(out.name)) > _LONGEST:
        raise ConfigError(f"out={out.name[:40]}... is too long a name: use at most {_LONGEST} bytes")
    if len(os.fsencode(out.absolute())) > 16 * _LONGEST:
        raise ConfigError(f"out={str(out)[:40]}... is too long a path: use at most {16 * _LONGEST} bytes")


def _is_ours(folder: Place) -> bool:
    return (
        folder.is_dir()
        and not (isinstance(folder, Path) and folder.is_symlink())
        and recipe_path(folder).is_file()
        and all(path.is_file() and _IN_FOLDER.fullmatch(path.name) for path in folder.iterdir())
    )


@contextlib.contextmanager
def _write_grid(path: Path, columns: int) -> Iterator[Write]:
    batches = []
    yield batches.append
    images = np.concatenate(batches)
    grid = image_grid(images, min(columns, len(images)), framed=True)
    to_image(grid).save(path)


@contextlib.contextmanager
def _write_folder(path: Path, prompts: Sequence[str] | None) -> Iterator[Write]:
    """One PNG for each image, named by its index."""
    path.mkdir()
    if prompts is not None:
        (path / PROMPTS_FILE).write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
    count = 0

    def write(images: UInt8[np.ndarray, "B H W C"]) -> None:
        nonlocal count
        for image in images:
            to_image(image).save(path / f"{count:06d}.png")
            count += 1

    yield write


@contextlib.contextmanager
def _write_npz(path: Path, num_samples: int, prompts: Sequence[str] | None) -> Iterator[Write]:
    """`arr_0`, uint8 NHWC, written batch by batch; no more than one batch is held in memory. Then `prompts`."""
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            yield _npz_writer(member, num_samples)
        if prompts is not None:
            with archive.open("prompts.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(prompts, np.str_), allow_pickle=False)


def _npz_writer(member: io.BufferedIOBase, num_samples: int) -> Write:
    has_header = False

    def write(images: UInt8[np.ndarray, "B H W C"]) -> None:
        nonlocal has_header
        # Grey images are written with three equal channels, as ADM's script wants them.
        images = np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3)))
        if not has_header:
            header = {"descr": "|u1", "fortran_order": False, "shape": (num_samples, *images.shape[1:])}
            np.lib.format.write_array_header_2_0(member, header)
            has_header = True
        member.write(images.tobytes())

    return write
