"""How a record of a file of latents is packed: the moments of an image and of its mirror image, perhaps with captions.

Two layouts, both little-endian. Without captions: 4 bytes "LAT1"; H, W, C and the label as uint32; the four moments in
the order of MOMENTS as float32 in C order. With captions: 4 bytes "LAT2"; the same four numbers; the number of captions
n, S, E, a code of STATES and the length of the text in bytes as uint32; the four moments; the captions' states
[n, S, E]; the captions themselves in UTF-8, each but the last ended by a line feed.
"""

import math
import struct
from typing import Any

import ml_dtypes
import numpy as np

MOMENTS = ("mean", "logvar", "mean_flip", "logvar_flip")
STATES = {"float32": np.dtype("<f4"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
"""Dtypes of captions' states by name; a dtype's code is its place."""
_MAGIC, _CAPTIONED = b"LAT1", b"LAT2"
_HEADER = struct.Struct("<4s4I")  # magic, height, width, channels, label
_CAPTIONS = struct.Struct("<5I")  # captions, length, width, dtype, bytes of text


def encode_record(record: dict[str, Any]) -> bytes:
    """Packs a latent record: `{"mean", "logvar", "mean_flip", "logvar_flip": [H, W, C], "label": int}`.

    With "captions", n texts, it has "caption_states" too: [n, S, E] of a dtype in STATES. Raises ValueError unless the
    moments have one shape, and the states fit the captions.
    """
    moments = [np.asarray(record[name], "<f4") for name in MOMENTS]
    shape = moments[0].shape
    if len(shape) != 3 or any(moment.shape != shape for moment in moments):
        raise ValueError(f"moments must be four arrays of one shape [H, W, C], got {[m.shape for m in moments]}")
    numbers = b"".join(moment.tobytes() for moment in moments)
    if "captions" not in record:
        return _HEADER.pack(_MAGIC, *shape, record["label"]) + numbers
    states, text = record["caption_states"], "\n".join(record["captions"]).encode()
    if states.ndim != 3 or len(states) != len(record["captions"]) or states.dtype.name not in STATES:
        raise ValueError(f"states {states.dtype} {list(states.shape)} do not fit {len(record['captions'])} captions")
    header = _HEADER.pack(_CAPTIONED, *shape, record["label"])
    header += _CAPTIONS.pack(*states.shape, list(STATES).index(states.dtype.name), len(text))
    return header + numbers + states.tobytes() + text


def decode_record(data: bytes) -> dict[str, Any]:
    """Unpacks what `encode_record` packed; the arrays are read-only views. Raises ValueError for anything else."""
    if len(data) < _HEADER.size or data[:4] not in (_MAGIC, _CAPTIONED):
        raise ValueError(f"{len(data)} bytes that do not start with {_MAGIC!r} or {_CAPTIONED!r} are no latent record")
    magic, height, width, channels, label = _HEADER.unpack_from(data)
    shape = (len(MOMENTS), height, width, channels)
    start, size = _HEADER.size, 4 * math.prod(shape)
    captions: dict[str, Any] = {}
    if magic == _CAPTIONED and len(data) >= start + _CAPTIONS.size:
        *states, code, text = _CAPTIONS.unpack_from(data, start)
        start += _CAPTIONS.size
        captions = _decode_captions(data, start + size, tuple(states), code, text)
    elif magic == _CAPTIONED or len(data) != start + size:
        raise ValueError(f"a latent record of shape {shape[1:]} cannot have {len(data)} bytes")
    moments = np.frombuffer(data, "<f4", count=math.prod(shape), offset=start).reshape(shape)
    return dict(zip(MOMENTS, moments, strict=True)) | {"label": label} | captions


def _decode_captions(data: bytes, start: int, shape: tuple[int, ...], code: int, text: int) -> dict[str, Any]:
    dtype = dict(enumerate(STATES.values())).get(code)
    if dtype is None or len(data) != start + math.prod(shape) * dtype.itemsize + text:
        raise ValueError(f"a latent record with states {shape} of dtype {code} cannot have {len(data)} bytes")
    states = np.frombuffer(data, dtype, count=math.prod(shape), offset=start).reshape(shape)
    captions = data[len(data) - text :].decode().split("\n")
    if len(captions) != len(states):
        raise ValueError(f"a latent record has {len(captions)} captions and the states of {len(states)}")
    return {"caption_states": states, "captions": captions}
