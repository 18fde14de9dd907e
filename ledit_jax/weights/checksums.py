"""Checksums of arrays, wherever their parts lie: of one device, or split over the mesh of several processes.

Each element's bits are mixed with its place, and the results are added. So the parts may be added in any order, and
any bits of one element that change, change the sum: mixing is one to one.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Checksums = dict[str, str]
"""By an array's path in its tree: "float32 01234567 89abcdef"."""

_SALTS = (0x9E3779B9, 0x7F4A7C15)

_FEW = 2**23
"""Elements: NumPy adds them up in a third of a second, and XLA takes one or two to compile the program that would."""


def array_checksums(tree: Any) -> Checksums:
    """A checksum for each array of a tree. Every process that holds parts of them must call it."""
    leaves = [(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if hasattr(leaf, "dtype")]
    arrays = [leaf for _, leaf in leaves]
    if sooner_on_host(arrays):
        sums = [_sum_on_host(np.asarray(array)) for array in arrays]
    else:
        # One program: several at once, each of which adds up over all devices, may wait for each other for ever.
        sums = jax.device_get(_sums(arrays))
    return {
        "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path): (
            f"{leaf.dtype} {first:08x} {second:08x}"
        )
        for (path, leaf), (first, second) in zip(leaves, sums, strict=True)
    }


def sooner_on_host(arrays: Sequence[Any]) -> bool:
    """Whether NumPy has looked at all of these before XLA has compiled a program that does."""
    return sum(array.size for array in arrays) <= _FEW and all(getattr(a, "is_fully_addressable", True) for a in arrays)


def changed_arrays(written: Mapping[str, str], tree: Any) -> list[str]:
    """Names of arrays whose values are not those that were written; of another dtype or name, nothing is known."""
    found = array_checksums(tree)
    same_kind = [name for name in found if written.get(name, "").split(" ")[0] == found[name].split(" ")[0]]
    return [name for name in same_kind if written[name] != found[name]]


def fingerprint(params: Any) -> str:
    """Sixteen hexadecimal digits that depend on every name, shape, dtype and value."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def written_checksums(description: Mapping[str, Any], item: str) -> Checksums:
    """Those that a checkpoint's description has of an item; none for older checkpoints, and where they are damaged."""
    sums = description.get("checksums")
    found = sums.get(item) if isinstance(sums, dict) else None
    return {name: text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}


def digest(values: Any) -> str:
    """Sixteen hexadecimal digits of anything that JSON holds, such as checksums."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@jax.jit
def _sums(arrays: list[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    return [_sum(array) for array in arrays]


@jax.jit  # so that arrays of one shape, of which an optimiser has two, are traced once
def _sum(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    bits = _bits(array)
    places = jnp.zeros(bits.shape, jnp.uint32)
    for axis, stride in enumerate(_strides(bits.shape)):
        places += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * np.uint32(stride % 2**32)
    mixed = [_mix(bits ^ _mix(places + np.uint32(salt))) for salt in _SALTS]
    return mixed[0].sum(dtype=jnp.uint32), mixed[1].sum(dtype=jnp.uint32)


def _sum_on_host(array: np.ndarray) -> tuple[int, int]:
    """The same by NumPy."""
    if array.dtype == bool:
        bits = array.astype(np.uint32)
    else:
        width = {1: np.uint8, 2: np.uint16}.get(array.dtype.itemsize, np.uint32)
        bits = np.ascontiguousarray(array).reshape(-1).view(width).astype(np.uint32)
    bits = bits.reshape(-1)  # never a scalar, whose overflow NumPy warns of
    places = np.arange(bits.size, dtype=np.uint32)
    first, second = (_mix(bits ^ _mix(places + np.uint32(salt))).sum(dtype=np.uint32) for salt in _SALTS)
    return int(first), int(second)


def _bits(array: jax.Array) -> jax.Array:
    if array.dtype == bool:
        return array.astype(jnp.uint32)
    width = {1: jnp.uint8, 2: jnp.uint16}.get(array.dtype.itemsize, jnp.uint32)  # of 8 bytes it makes two
    return jax.lax.bitcast_convert_type(array, width).astype(jnp.uint32)


def _mix(x: Any) -> Any:
    """The last step of MurmurHash3, a one-to-one function of 32 bits."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
