"""The oracle's weights and gradients, taken over to our model."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from oracles.torch_dit import LEDiT
from tiny import build_ledit
from torch import Tensor

from ledit_jax.config import ModelConfig
from ledit_jax.models import ledit

_TORCH_NAMES = {
    "patch_embed": "x_embedder.proj",
    "timestep_embed.fc1": "t_embedder.mlp.0",
    "timestep_embed.fc2": "t_embedder.mlp.2",
    "label_embed": "y_embedder.embedding_table",
    "conv": "conv",
    "conv_norm": "conv_norm",
    "blocks.attn.qkv": "attn.qkv",
    "blocks.attn.proj": "attn.proj",
    "blocks.mlp.fc1": "mlp.fc1",
    "blocks.mlp.fc2": "mlp.fc2",
    "blocks.adaln": "adaLN_modulation.1",
    "final_layer.adaln": "final_layer.adaLN_modulation.1",
    "final_layer.linear": "final_layer.linear",
}


def to_ledit_params(module: LEDiT, template: nnx.State) -> nnx.State:
    """The parameters of `module` in the tree of `template`, our model's `nnx.split(model, nnx.Param)[1]`."""
    return to_ledit_tree(dict(module.named_parameters()), template)


def to_ledit_tree(tensors: Mapping[str, Tensor], template: nnx.State) -> nnx.State:
    """The same for any tensors by parameter name, gradients for example. Every trainable name must be used."""
    unused = {name for name in tensors if name != "pos_embed"}
    leaves = []
    paths, treedef = jax.tree_util.tree_flatten_with_path(template)
    for path, leaf in paths:
        *module_path, kind = [str(key.key) for key in path if hasattr(key, "key")]
        kind = "bias" if kind == "bias" else "weight"
        name = f"{_TORCH_NAMES['.'.join(module_path)]}.{kind}"
        blocks = module_path[0] == "blocks"
        names = [f"blocks.{i}.{name}" for i in range(leaf.shape[0])] if blocks else [name]
        arrays = [_our_layout(tensors[n].detach().numpy(), module_path[0]) for n in names]
        unused -= set(names)
        array = np.stack(arrays) if blocks else arrays[0]
        if array.shape != leaf.shape:
            raise ValueError(f"{name} has shape {array.shape} and {leaf.shape} is needed")
        leaves.append(jnp.array(array))
    if unused:
        raise ValueError(f"no place for {sorted(unused)}")
    return jax.tree.unflatten(treedef, leaves)


def _our_layout(array: np.ndarray, module: str) -> np.ndarray:
    """Kernels with the output last; the patch convolution as a Linear over (row, column, channel)."""
    if module == "conv" and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if module == "patch_embed" and array.ndim == 4:
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array.T if array.ndim == 2 and module != "label_embed" else array


def ledit_peer(module: LEDiT, config: ModelConfig, in_channels: int = 4) -> ledit.LEDiT:
    """Our model with the parameters of `module`."""
    abstract = nnx.eval_shape(lambda: build_ledit(config, in_channels, nnx.Rngs(0)))
    graphdef, template = nnx.split(abstract, nnx.Param)
    return nnx.merge(graphdef, to_ledit_params(module, template))
