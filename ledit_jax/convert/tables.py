"""Tables that map PyTorch tensors to our parameters, and the two functions that apply them in either direction.

A row names one of our parameters and the torch tensors it is made of. Only shapes and axes change: there and back is
bit for bit, whatever the dtype. Parameters are flat here, {"blocks.attn.qkv.kernel": array}.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ledit_jax.errors import ConversionError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Axes:
    """How one tensor is laid out on either side: two functions, each the inverse of the other."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


SAME = Axes(lambda a: a, lambda a: a)
LINEAR = Axes(np.transpose, np.transpose)  # [out, in] <-> [in, out]
CONV = Axes(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))  # OIHW <-> HWIO
POINTWISE = Axes(lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None])  # a 1x1 convolution <-> [in, out]


def patch_axes(patch_size: int) -> Axes:
    """A convolution [D, C, P, P] with stride P <-> a Linear over (row, column, channel), [P P C, D]."""
    return Axes(
        lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
        lambda a: a.reshape(patch_size, patch_size, -1, a.shape[1]).transpose(3, 2, 0, 1),
    )


def network_axes(module: str, leaf: str, patch_size: int) -> Axes:
    """Of a diffusion transformer's parameter, `module.leaf` by our names."""
    if leaf != "kernel":
        return SAME
    if module == "patch_embed":
        return patch_axes(patch_size)
    return CONV if module == "conv" else LINEAR


@dataclass(frozen=True)
class Row:
    """One of our parameters and its torch tensors.

    `layers` names, for each layer, the tensors that are joined along torch's first axis (output features), in
    order: `(("w",),)` is a single tensor, `(("q", "k", "v"),)` a fused projection. With `stacked`, layers lie along
    a new leading axis: `(("blocks.0.w",), ("blocks.1.w",))` with torch shapes [O, I] and LINEAR gives [2, I, O].
    """

    path: str
    layers: tuple[tuple[str, ...], ...]
    axes: Axes = SAME
    stacked: bool = False

    def join(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Torch tensors by name -> our array."""
        layers = (self.axes.to_ours(_concatenate([state[name] for name in names])) for names in self.layers)
        first = next(layers)
        if not self.stacked:
            return np.asarray(first, order="C")
        joined = np.empty((len(self.layers), *first.shape), first.dtype)
        for i, layer in enumerate(itertools.chain([first], layers)):  # np.stack would hold every layer twice
            joined[i] = layer
        return joined

    def split(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Our array -> torch tensors by name, as views."""
        tensors: dict[str, np.ndarray] = {}
        for names, layer in zip(self.layers, array if self.stacked else [array], strict=True):
            tensor = self.axes.to_torch(layer)
            parts = np.split(tensor, len(names)) if len(names) > 1 else [tensor]  # a scalar cannot be split
            tensors.update(zip(names, parts, strict=True))
        return tensors

    def torch_shapes(self, shape: tuple[int, ...]) -> Shapes:
        """Shapes that the torch tensors must have for our array to have `shape`."""
        blank = np.broadcast_to(np.zeros((), np.int8), shape)  # a shape that costs no memory
        return {name: tensor.shape for name, tensor in self.split(blank).items()}


def _concatenate(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Always a copy: what is given may be a mapped file. A single one may be a scalar."""
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0].copy()


Table = Sequence[Row]


def check_table(table: Table, state_shapes: Shapes, shapes: Shapes, constants: Shapes | None = None) -> None:
    """Raises ConversionError unless the torch shapes are exactly those that `table` turns into our `shapes`.

    constants: tensors that must be there as well and are no parameter of ours. Every missing, unmapped and
    wrong-shaped name is in the one error.
    """
    _check_paths(table, shapes)
    needed: dict[str, tuple[int, ...]] = dict(constants or {})
    for row in table:
        needed.update(row.torch_shapes(shapes[row.path]))
    found = {name: tuple(shape) for name, shape in state_shapes.items()}
    missing = [name for name in needed if name not in found]
    unmapped = [name for name in found if name not in needed]
    wrong = [(name, found[name], needed[name]) for name in needed if found.get(name, needed[name]) != needed[name]]
    if missing or unmapped or wrong:
        raise ConversionError(missing, unmapped, wrong)


def apply_table(table: Table, state: Mapping[str, np.ndarray], shapes: Shapes) -> dict[str, np.ndarray]:
    """Torch tensors -> our parameters, flat and of the same dtype.

    shapes: of our parameters, see `param_shapes`. Raises ConversionError before anything is converted, see
    `check_table`.
    """
    check_table(table, param_shapes(state), shapes)
    return {row.path: row.join(state) for row in table}


def invert_table(table: Table, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our flat parameters -> torch tensors: the inverse of `apply_table`, bit for bit.

    Raises ConversionError where the table and the parameters do not name the same paths.
    """
    _check_paths(table, params)
    state: dict[str, np.ndarray] = {}
    for row in table:
        tensors = row.split(np.asarray(params[row.path]))
        state.update((name, np.asarray(tensor, order="C")) for name, tensor in tensors.items())
    return state


def _check_paths(table: Table, paths: Iterable[str]) -> None:
    rows, paths = {row.path for row in table}, set(paths)
    if rows != paths:
        raise ConversionError(missing=sorted(rows - paths), unmapped=sorted(paths - rows))


def param_shapes(params: Mapping[str, Any]) -> Shapes:
    """Shapes of anything flat: arrays, torch tensors or `jax.ShapeDtypeStruct`s by name."""
    return {name: tuple(array.shape) for name, array in params.items()}


def flatten_params(params: PyTree) -> dict[str, Any]:
    """`nnx.split(model, nnx.Param)[1]` -> leaves by dotted path, arrays or (of an abstract model) their shapes."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {_dotted(path): leaf for path, leaf in leaves}


def unflatten_params(flat: Mapping[str, Any], like: PyTree) -> PyTree:
    """Inverse of `flatten_params` for NumPy or JAX arrays, cast to the dtypes of `like`: a model's, maybe abstract.

    Raises ConversionError where names or shapes differ.
    """
    needed = flatten_params(like)
    check_table([Row(path, ((path,),)) for path in needed], param_shapes(flat), param_shapes(needed))
    leaves = [jnp.asarray(flat[path], leaf.dtype) for path, leaf in needed.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _dotted(path: tuple[Any, ...]) -> str:
    # The last key is the variable's own, not a name of the model's.
    return ".".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
