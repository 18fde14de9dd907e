"""The weights of the Inception network of 2015: from the PyTorch port, from TensorFlow's graph, or from our own file.

pt_inception-2015-12-05-6726825d.pth     the port that pytorch-fid and others use; reading it needs torch
classify_image_graph_def.pb              the graph that ADM's evaluation loads; read without TensorFlow
x.npz                                    either of them, converted by `convert_inception`; needs neither
"""

import functools
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ledit_jax.convert.files import naming, open_tensors
from ledit_jax.convert.output import check_output
from ledit_jax.convert.tables import CONV, flatten_params, unflatten_params
from ledit_jax.errors import CheckpointError, ConversionError, OutputError
from ledit_jax.files import whole_file
from ledit_jax.files.readers import Header, read_npz
from ledit_jax.models.inception import Inception

_log = logging.getLogger(__name__)
_EPS = 1e-3  # of every batch normalisation
_BN = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
"""In the order of the graph's mixed, mixed_1 ... mixed_10."""
_BRANCHES = {
    "5": {"branch1x1": "", "branch5x5": "tower", "branch3x3dbl": "tower_1", "branch_pool": "tower_2"},
    "6a": {"branch3x3": "", "branch3x3dbl": "tower"},
    "6": {"branch1x1": "", "branch7x7": "tower", "branch7x7dbl": "tower_1", "branch_pool": "tower_2"},
    "7a": {"branch3x3": "tower", "branch7x7x3": "tower_1"},
    "7": {"branch1x1": "", "branch3x3": "tower", "branch3x3dbl": "tower_1", "branch_pool": "tower_2"},
}
"""The graph's scope for each branch of the port, by block or kind of block."""


def load_inception(path: str | Path) -> Inception:
    """The network with the weights of a .pth, .pb or .npz file (see the top of this module).

    Raises ConfigError for a file that is missing, damaged or of another network, with every name at fault.
    """
    flat = read_inception(Path(path))
    graphdef, state = nnx.split(_abstract(), nnx.Param)
    return nnx.merge(graphdef, unflatten_params({k: jnp.asarray(v) for k, v in flat.items()}, nnx.to_pure_dict(state)))


def convert_inception(source: str | Path, output: str | Path, overwrite: bool = False) -> None:
    """Writes the weights of a .pth or .pb as an .npz of ours, which needs neither torch nor the graph to be read."""
    output = Path(output)
    if output.suffix != ".npz":
        raise OutputError(f"output={output} must end in .npz: the Inception network is one file of arrays")
    check_output(output, overwrite, source, makes_file=True)
    flat = read_inception(Path(source))
    with whole_file(output) as file:
        np.savez(file, **flat)
    _log.info("%s is the Inception network of 2015", source)


def is_inception(path: str | Path) -> bool:
    """Whether a file says that it is this network: a TensorFlow graph, or a PyTorch file with the port's names."""
    path = Path(path)
    if path.suffix == ".pb":
        return True
    return path.is_file() and "Conv2d_1a_3x3.conv.weight" in open_tensors(path).shapes


def read_inception(path: Path) -> dict[str, np.ndarray]:
    """Our parameters by name, "Mixed_5b.branch1x1.conv.kernel", with batch normalisation folded in."""
    if not path.is_file():
        raise CheckpointError(
            f"inception={path} does not exist: give pt_inception-2015-12-05-6726825d.pth or "
            "classify_image_graph_def.pb (docs/evaluation.md says where they are published), or an .npz made of one"
        )
    if path.suffix == ".npz":
        with naming(path):
            return _read_npz(path)
    with naming(path):
        stored = _read_graph(path) if path.suffix == ".pb" else _read_port(path)
    _check_finite(path, stored)
    return _fold(stored)


def _check_finite(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise CheckpointError(f"{path} holds values that are not finite, in {', '.join(bad)}: download it again")


@functools.cache
def _abstract() -> Inception:
    return nnx.eval_shape(lambda: Inception(nnx.Rngs(0)))


@functools.cache
def _shapes() -> dict[str, tuple[int, ...]]:
    params = nnx.to_pure_dict(nnx.state(_abstract(), nnx.Param))
    return {name: leaf.shape for name, leaf in flatten_params(params).items()}


def _port_shapes() -> dict[str, tuple[int, ...]]:
    """What the PyTorch port holds."""
    shapes = {}
    for name, shape in _shapes().items():
        if name.endswith(".conv.kernel"):
            module = name.removesuffix(".conv.kernel")
            shapes[f"{module}.conv.weight"] = (shape[3], shape[2], *shape[:2])
            shapes |= {f"{module}.bn.{part}": (shape[3],) for part in _BN}
    features, classes = _shapes()["fc.kernel"]
    return shapes | {"fc.weight": (classes, features), "fc.bias": (classes,)}


def _check(found: Mapping[str, tuple[int, ...]], needed: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in needed if name not in found]
    extra = [name for name in found if name not in needed]
    wrong = [(n, found[n], shape) for n, shape in needed.items() if n in found and found[n] != shape]
    if missing or extra or wrong:
        raise ConversionError(missing, extra, wrong)


def _fold(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """gamma (Wx - mean) / sqrt(var + eps) + beta as one kernel and bias, in float64 before they are rounded."""
    flat = {"fc.kernel": np.ascontiguousarray(stored["fc.weight"].T, np.float32)}  # its bias takes no part in scores
    for name in stored:
        if name.endswith(".conv.weight"):
            module = name.removesuffix(".conv.weight")
            gamma, beta, mean, var = (stored[f"{module}.bn.{part}"].astype(np.float64) for part in _BN)
            scale = gamma / np.sqrt(var + _EPS)
            flat[f"{module}.conv.kernel"] = (CONV.to_ours(stored[name]) * scale).astype(np.float32)
            flat[f"{module}.conv.bias"] = (beta - mean * scale).astype(np.float32)
    return flat


def _read_port(path: Path) -> dict[str, np.ndarray]:
    """The auxiliary classifier, which some copies carry, and the counters of batches take no part and are left."""
    stored = open_tensors(path)
    shapes = {
        name: shape
        for name, shape in stored.shapes.items()
        if not name.startswith("AuxLogits.") and not name.endswith(".num_batches_tracked")
    }
    _check(shapes, _port_shapes())
    return stored.read(shapes)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, tuple[int, ...]] = {}

    def wanted(name: str, header: Header) -> bool:
        found[name] = header.shape
        return _shapes().get(name) == header.shape and header.dtype == np.float32

    arrays = read_npz(path, wanted)
    _check(found, _shapes())
    if other := [name for name in found if name not in arrays]:
        raise CheckpointError(f"{path}: {other[0]} is no float32: convert it again (convert_torch_weights.py)")
    _check_finite(path, arrays)
    return {name: arrays[name] for name in _shapes()}


def _read_graph(path: Path) -> dict[str, np.ndarray]:
    """The constants of a TensorFlow GraphDef, under the names and in the layout of the PyTorch port."""
    from tensorboardX.proto.graph_pb2 import GraphDef  # the same message as TensorFlow's

    graph = GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's own error class depends on its implementation
        raise CheckpointError(f"{path} is damaged, cut short or no TensorFlow graph: download it again") from error
    if not graph.node:
        raise CheckpointError(f"{path} is empty, or no TensorFlow graph: download it again")
    names = graph_names()
    own = re.compile(
        r"(^|/)(conv2d_params|batchnorm/(gamma|beta|moving_mean|moving_variance))$|^softmax/(weights|biases)$"
    )
    constants = {node.name: node.attr["value"].tensor for node in graph.node if node.op == "Const"}
    found = {names.get(name, name): tensor for name, tensor in constants.items() if name in names or own.search(name)}
    arrays = {name: _tensor(tensor, path) for name, tensor in found.items()}
    arrays = {name: _to_port(name, array) for name, array in arrays.items()}
    unscaled = [n.name for n in graph.node if n.op.startswith("BatchNorm") and not _scales(n)]
    for name in unscaled:  # their gamma is there and takes no part
        gamma = f"{names[f'{name}/conv2d_params'.replace('/batchnorm', '')].removesuffix('.conv.weight')}.bn.weight"
        arrays[gamma] = np.ones_like(arrays[gamma])
    _check({name: array.shape for name, array in arrays.items()}, _port_shapes())
    return arrays


def _scales(node) -> bool:
    return "scale_after_normalization" not in node.attr or node.attr["scale_after_normalization"].b


def _tensor(tensor, path: Path) -> np.ndarray:
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val, "<f4")
    if values.size == 1:  # one value may stand for all
        return np.full(shape, values[0], np.float32)
    if values.size != np.prod(shape):
        raise CheckpointError(f"{path} holds {values.size} values where its shapes say {shape}: download it again")
    return values.reshape(shape)


def _to_port(name: str, array: np.ndarray) -> np.ndarray:
    if name == "fc.weight":
        return array.T
    return CONV.to_torch(array) if name.endswith(".conv.weight") and array.ndim == 4 else array


def graph_names() -> dict[str, str]:
    """The graph's constants -> the port's names; written from the two layouts, which name the same branches."""
    scopes = {("conv" if i == 0 else f"conv_{i}"): module for i, module in enumerate(_STEM)}
    for name in _shapes():
        if name.startswith("Mixed_") and name.endswith(".conv.kernel"):
            module = name.removesuffix(".conv.kernel")
            scopes[_scope(*module.removeprefix("Mixed_").split("."))] = module
    names = {"softmax/weights": "fc.weight", "softmax/biases": "fc.bias"}
    for scope, module in scopes.items():
        names[f"{scope}/conv2d_params"] = f"{module}.conv.weight"
        names |= {f"{scope}/batchnorm/{theirs}": f"{module}.bn.{ours}" for ours, theirs in _BN.items()}
    return names


def _scope(block: str, branch: str) -> str:
    """("6c", "branch7x7dbl_3") -> "mixed_5/tower_1/conv_2"; a fork a, b of the last blocks is a scope of its own."""
    mixed = _MIXED.index(block)
    base, _, place = branch.partition("_") if branch != "branch_pool" else (branch, "", "")
    tower = _BRANCHES.get(block, _BRANCHES[block[0]])[base]
    if place.endswith(("a", "b")):
        tower, index = f"{tower}/mixed", "ab".index(place[-1])
    else:
        index = int(place or 1) - 1
    parts = ["mixed" if mixed == 0 else f"mixed_{mixed}", tower, "conv" if index == 0 else f"conv_{index}"]
    return "/".join(part for part in parts if part)
