"""What a folder of latents says of itself: metadata.json, and with captions the empty caption's states."""

import dataclasses
import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ledit_jax.config.parse import from_mapping
from ledit_jax.data.latent_records import STATES
from ledit_jax.errors import ConfigError, DataError
from ledit_jax.files import Place, as_place, is_bucket, written_aside
from ledit_jax.files.bucket import reaching
from ledit_jax.files.readers import read_json, read_npy
from ledit_jax.files.refusals import unmounted

METADATA_FILE = "metadata.json"
EMPTY_CAPTION_FILE = "empty_caption.npy"
_TEXT = ("text", "text_id", "text_length", "text_width", "text_dtype")


@dataclasses.dataclass(frozen=True)
class LatentMetadata:
    """What metadata.json says of a folder of latents."""

    vae: str
    """Which autoencoder made them: a name or path for people to read."""
    scale: float
    """What sampled latents are multiplied by for training; the stored moments are not multiplied."""
    height: int
    """Of the source images, in pixels."""
    width: int
    downsample: int
    """Pixels per side of one latent cell."""
    latent_channels: int
    source: str
    """Which images were encoded: a name or path for people to read."""
    num_classes: int
    count: int = 0
    """Number of records in all files; `write_metadata` counts them."""
    layout: str = "NHWC"
    vae_id: str = ""
    """Fingerprint of the autoencoder's weights, see `ledit_jax.weights.fingerprint`."""
    skipped: int = 0
    """Images of the source that could not be read."""
    text: str = dataclasses.field(default="", repr=False)
    """Which text encoder made the captions' states: a name or path for people to read; empty without captions."""
    text_id: str = dataclasses.field(default="", repr=False)
    """Fingerprint of that encoder."""
    text_length: int = dataclasses.field(default=0, repr=False)
    """S, the tokens of a caption's states [S, E]."""
    text_width: int = dataclasses.field(default=0, repr=False)
    text_dtype: str = dataclasses.field(default="", repr=False)
    """What the states are stored as: float32 or bfloat16."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of each moment."""
        return self.height // self.downsample, self.width // self.downsample, self.latent_channels

    @property
    def bytes_per_caption(self) -> int:
        """Of its states."""
        return self.text_length * self.text_width * STATES[self.text_dtype].itemsize if self.text_id else 0

    @property
    def fingerprint(self) -> str:
        """What tells these latents from others; without captions as earlier versions had it."""
        text = repr([getattr(self, name) for name in _TEXT[1:]]) if self.text_id else ""
        return hashlib.sha256((repr(self) + text).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; what is about captions only where there are some."""
        values = dataclasses.asdict(self)
        return values if self.text_id else {name: value for name, value in values.items() if name not in _TEXT}


def read_metadata(path: str) -> LatentMetadata:
    """metadata.json of a finished folder. Raises DataError for any other folder."""
    if not is_bucket(path) and (fault := unmounted(path)):
        raise DataError(f"data.path: {fault}")
    file = as_place(path) / METADATA_FILE
    with reaching(path):
        is_finished = path and file.is_file()
    if not is_finished:
        raise DataError(f"data.path={path!r} has no {METADATA_FILE}: give a folder that encode_latents.py finished")
    try:
        metadata = from_mapping(LatentMetadata, read_json(file))
    except (ConfigError, TypeError) as error:
        raise DataError(f"{file} has other fields ({error}): encode the folder anew") from error
    sizes = ("height", "width", "downsample", "latent_channels", "num_classes", "scale")
    sizes += ("text_length", "text_width") if metadata.text_id else ()
    if wrong := [name for name in sizes if not getattr(metadata, name) > 0]:
        raise DataError(f"{file}: {wrong[0]}={getattr(metadata, wrong[0])} cannot be: encode the folder anew")
    if metadata.text_id and metadata.text_dtype not in STATES:
        raise DataError(f"{file}: text_dtype={metadata.text_dtype!r} is not known: encode the folder anew")
    return metadata


def write_empty_caption(folder: Place, states: Float32[np.ndarray, "S E"]) -> None:
    """Writes the file of the empty caption's states; several processes may write the same one at once."""
    with written_aside(folder / EMPTY_CAPTION_FILE, f"{socket.gethostname()}-{os.getpid()}") as aside:
        np.save(aside, states)


def read_empty_caption(path: str | Path, metadata: LatentMetadata) -> Float32[np.ndarray, "S E"]:
    """The states that `write_empty_caption` wrote. Raises DataError for a file that is damaged or missing."""
    shape = metadata.text_length, metadata.text_width
    return read_npy(Path(path) / EMPTY_CAPTION_FILE, shape, "float32", "encode the folder anew")
