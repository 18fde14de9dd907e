"""Latents encoded ahead of training: their files, the writer and the source.

A folder holds `latents-00000-of-00004.array_record` and so on, and a `metadata.json` that is written last: a folder
without one is unfinished. Records are those of `ledit_jax.data.latent_records`. One with captions holds the states of
the empty caption too, in `empty_caption.npy`.
"""

import dataclasses
import fcntl
import math
from pathlib import Path
from typing import Any

import numpy as np

from ledit_jax.config import AutoencoderConfig
from ledit_jax.data.latent_metadata import METADATA_FILE, LatentMetadata, read_empty_caption, read_metadata
from ledit_jax.data.latent_records import decode_record, encode_record
from ledit_jax.data.source import UnreadableRecord
from ledit_jax.errors import ConfigError, DataError, OutputError, one_line
from ledit_jax.files import Place, as_place, is_bucket, settle, write_json, write_whole
from ledit_jax.files.mirror import Mirror
from ledit_jax.files.refusals import writing


def shard_path(folder: str | Place, shard: int, num_shards: int) -> Place:
    """Path of one of the folder's files."""
    return as_place(folder) / f"latents-{shard:05d}-of-{num_shards:05d}.array_record"


class LatentWriter:
    """Writes one of the folder's files; as many processes as there are shards can write side by side.

    A context manager. The file takes its name when it is closed without an exception, so a file with that name is
    whole; what a killed process left is written over. Raises OutputError if the file exists already or another
    process is writing it: no process writes over another's work. For a bucket it is written here, and uploaded with
    the number of its records beside it.
    """

    def __init__(self, folder: str | Place, shape: tuple[int, int, int], shard: int = 0, num_shards: int = 1):
        from array_record.python.array_record_module import ArrayRecordWriter  # here: only latents and TFDS need it

        self._place, self._mirror, self._count = shard_path(folder, shard, num_shards), Mirror(as_place(folder)), 0
        self._path = self._mirror.folder / self._place.name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._partial, self._shape = self._path.with_suffix(".partial"), shape
        self._file = open(self._partial, "ab")  # noqa: SIM115, it holds the lock, which ends with the process
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise OutputError(f"{str(self._partial)!r} is being written by another process: let it finish") from error
        except OSError:  # a file system without locks
            pass
        if self._place.exists():
            self._partial.unlink()
            self._file.close()
            raise OutputError(f"{str(self._place)!r} exists: delete it or choose another folder")
        # Read one at a time, in any order; and compressing noise-like floats saves 8% and makes reading 3 times slower.
        self._writer = ArrayRecordWriter(str(self._partial), "group_size:1,uncompressed")

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record; raises ValueError unless its moments have the writer's shape."""
        if np.shape(record["mean"]) != self._shape:
            raise ValueError(f"mean has shape {np.shape(record['mean'])}, and {self._shape} is needed")
        with writing(self._path):
            self._writer.write(encode_record(record))
        self._count += 1

    def __enter__(self) -> "LatentWriter":
        return self

    def __exit__(self, error_type: type | None, *_: object) -> None:
        try:
            with writing(self._path):
                self._writer.close()
                if not error_type:
                    settle(self._partial, self._path)
            if is_bucket(self._place) and not error_type:
                write_whole(_count_path(self._place), str(self._count))
        finally:
            # While it is locked: nobody else can have made it theirs.
            self._partial.unlink(missing_ok=True)
            self._file.close()
            self._mirror.close()


def _count_path(shard: Place) -> Place:
    return shard.with_suffix(".count")


def write_metadata(folder: str | Place, metadata: LatentMetadata, num_shards: int = 1) -> LatentMetadata:
    """Counts the records of all files and writes metadata.json, once and last; returns it with the count.

    A `metadata.count` of more is the number of images, some of which were skipped. Raises DataError if a file is
    missing.
    """
    paths = [shard_path(folder, shard, num_shards) for shard in range(num_shards)]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise DataError(f"{str(folder)!r} lacks {missing[0]}, one of {len(missing)} files: encode them first")
    counts = [int(_count_path(path).read_text()) for path in paths] if is_bucket(folder) else [len(_open(paths))]
    count = sum(counts)
    metadata = dataclasses.replace(metadata, count=count, skipped=max(metadata.count - count, 0))
    write_json(as_place(folder) / METADATA_FILE, metadata.to_dict())
    return metadata


class Latents:
    """Encoded latents of images of height x width pixels; records as `decode_record` gives them.

    Raises DataError if the folder is unfinished or damaged, and ConfigError if it is of another size or autoencoder.
    """

    def __init__(self, path: str, height: int, width: int, autoencoder: AutoencoderConfig):
        self.metadata = read_metadata(path)
        _check_fits(path, self.metadata, height, width, autoencoder)
        paths = sorted(Path(path).glob("latents-*-of-*.array_record"))
        named = [shard_path(path, shard, len(paths)) for shard in range(len(paths))]
        self._records = _open(paths) if paths and paths == named else None
        if self._records is None or len(self._records) != self.metadata.count:
            held = "an incomplete set of files" if self._records is None else f"{len(self._records)} records"
            raise DataError(
                f"data.path={path!r} holds {held}, and its {METADATA_FILE} counts {self.metadata.count}: encode it anew"
            )
        self.num_classes, self._path = self.metadata.num_classes, path
        self.empty_caption = read_empty_caption(path, self.metadata) if self.metadata.text_id else None
        """States [S, E] in float32 of the caption that says nothing; None without captions."""

    @property
    def fingerprint(self) -> str:
        """What tells these latents from others."""
        return self.metadata.fingerprint

    @property
    def text_id(self) -> str | None:
        """Fingerprint of the encoder of the captions' states; None without captions."""
        return self.metadata.text_id or None

    def __len__(self) -> int:
        return self.metadata.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):  # ArrayRecord's own is a ValueError
            raise IndexError(f"latent {index} of {len(self)}")
        try:
            record = decode_record(self._records[index])
        except (RuntimeError, ValueError, OSError) as error:  # ArrayRecord's, for bytes that changed or went away
            raise UnreadableRecord(f"{self._path} latent {index}: {one_line(error)[:200]}") from error
        if record["mean"].shape != self.metadata.shape:
            raise UnreadableRecord(f"{self._path} latent {index} has shape {record['mean'].shape}")
        if self.text_id and record["caption_states"].shape[1:] != self.empty_caption.shape:
            found = record["caption_states"].shape[1:]
            raise UnreadableRecord(f"{self._path} latent {index} has states of shape {found}")
        return record


def _open(paths: list[Path]) -> Any:
    """All records as one. Raises DataError, naming the first file that is damaged."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    try:
        return ArrayRecordDataSource([str(path) for path in paths])
    except (RuntimeError, ValueError, OSError) as error:
        if len(paths) > 1:
            for path in paths:
                _open([path])
        reason = one_line(error)[:200]
        raise DataError(f"{paths[0]} is damaged or cut short ({reason}): remove it, and encode it again") from error


def _check_fits(path: str, metadata: LatentMetadata, height: int, width: int, autoencoder: AutoencoderConfig) -> None:
    if autoencoder.kind == "none":
        raise ConfigError("autoencoder.kind=none with data.source=latents: set autoencoder.kind to sd")
    wanted = {
        "data.image_height": (height, metadata.height),
        "data.image_width": (width, metadata.width),
        "autoencoder.downsample": (autoencoder.downsample, metadata.downsample),
        "autoencoder.latent_channels": (autoencoder.latent_channels, metadata.latent_channels),
        "autoencoder.scale": (autoencoder.scale, metadata.scale),
        "the layout": ("NHWC", metadata.layout),
    }
    for name, (here, there) in wanted.items():
        same = here == there if isinstance(here, str) else math.isclose(here, there, rel_tol=1e-6)
        if not same:
            raise ConfigError(
                f"{name}={here} does not match the latents in data.path={path!r}, which have {there}: "
                f"use {there} or encode the images anew"
            )
