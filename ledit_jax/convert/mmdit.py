"""MMDiT's network by PyTorch names: REPA's (sihyun-yu/REPA, models/mmdit.py; LEMMDiT adds conv and conv_norm) and
diffusers' SD3Transformer2DModel, with no pooled text.

Everything here works on names and shapes; reading and writing files is the caller's.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from ledit_jax.convert.tables import Axes, Row, Shapes, Table, network_axes
from ledit_jax.errors import ConversionError
from ledit_jax.models.condition import EMPTY_CAPTION

# Our modules -> theirs; {} is the block, and several are joined.
_REPA = {
    "patch_embed": ("x_embedder.proj",),
    "timestep_embed.fc1": ("t_embedder.mlp.0",),
    "timestep_embed.fc2": ("t_embedder.mlp.2",),
    "text_embed": ("context_embedder",),
    "conv": ("conv",),
    "conv_norm": ("conv_norm",),
    "final_layer.adaln": ("final_layer.adaLN_modulation.1",),
    "final_layer.linear": ("final_layer.linear",),
}
_SD3 = {
    "patch_embed": ("pos_embed.proj",),
    "timestep_embed.fc1": ("time_text_embed.timestep_embedder.linear_1",),
    "timestep_embed.fc2": ("time_text_embed.timestep_embedder.linear_2",),
    "text_embed": ("context_embedder",),
    "final_layer.adaln": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
}
# Of a block, by stream.
_REPA_PARTS = {
    "attn.qkv": ("attn.qkv",),
    "attn.proj": ("attn.proj",),
    "attn.q_norm": ("attn.ln_q",),
    "attn.k_norm": ("attn.ln_k",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
    "adaln": ("adaLN_modulation.1",),
}
_SD3_PARTS = {
    "image.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "image.attn.proj": ("attn.to_out.0",),
    "image.attn.q_norm": ("attn.norm_q",),
    "image.attn.k_norm": ("attn.norm_k",),
    "image.mlp.fc1": ("ff.net.0.proj",),
    "image.mlp.fc2": ("ff.net.2",),
    "image.adaln": ("norm1.linear",),
    "text.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "text.attn.proj": ("attn.to_add_out",),
    "text.attn.q_norm": ("attn.norm_added_q",),
    "text.attn.k_norm": ("attn.norm_added_k",),
    "text.mlp.fc1": ("ff_context.net.0.proj",),
    "text.mlp.fc2": ("ff_context.net.2",),
    "text.adaln": ("norm1_context.linear",),
}
_BLOCKS = {
    "repa": {
        f"{ours}.{part}": tuple(f"joint_blocks.{{}}.{theirs}.{name}" for name in names)
        for ours, theirs in (("text", "context_block"), ("image", "x_block"))
        for part, names in _REPA_PARTS.items()
    },
    "sd3": {part: tuple(f"transformer_blocks.{{}}.{name}" for name in names) for part, names in _SD3_PARTS.items()},
}
LAYOUTS = {
    layout: modules | {f"{kind}.{part}": names for kind in ("blocks", "last_block") for part, names in parts.items()}
    for (layout, modules), parts in zip({"repa": _REPA, "sd3": _SD3}.items(), _BLOCKS.values(), strict=True)
}
_SIGNS = {"repa": "joint_blocks.", "sd3": "transformer_blocks.0.norm1_context."}
POSITIONS = {"repa": "pos_embed", "sd3": "pos_embed.pos_embed"}
POOLED = "time_text_embed.text_embedder."
"""What the names of diffusers' embedding of pooled text begin with; an MMDiT has none, so it has to be zero."""
_SWAPPED = ("last_block.text.adaln", "final_layer.adaln")
"""Where diffusers has (scale, shift) and REPA and we have (shift, scale)."""


def mmdit_layout(names: Iterable[str]) -> str | None:
    """Whose names these are, "repa" or "sd3"; None if they are no MMDiT's."""
    names = list(names)
    return next((one for one, sign in _SIGNS.items() if any(name.startswith(sign) for name in names)), None)


def mmdit_table(shapes: Shapes, layout: str, patch_size: int) -> Table:
    """One row for each of our parameters; layout is "repa" or "sd3". shapes: of ours, by dotted path.

    Raises ConversionError for parameters that have no names in such files. The empty caption has its own name: only
    files that we wrote hold it.
    """
    modules = LAYOUTS[layout]
    if unnamed := [path for path in shapes if path.rpartition(".")[0] not in modules and path != EMPTY_CAPTION]:
        raise ConversionError(unmapped=unnamed)
    depth = 1 + shapes["blocks.image.attn.qkv.kernel"][0]
    return tuple(_row(path, depth, modules, layout, patch_size) for path in shapes)


def _row(path: str, depth: int, modules: Mapping[str, tuple[str, ...]], layout: str, patch_size: int) -> Row:
    if path == EMPTY_CAPTION:
        return Row(path, ((path,),))
    module, _, leaf = path.rpartition(".")
    stacked = module.startswith("blocks.")
    kind = "bias" if leaf == "bias" else "weight"
    blocks = range(depth - 1) if stacked else [depth - 1]
    layers = tuple(tuple(f"{name}.{kind}".format(i) for name in modules[module]) for i in blocks)
    axes = network_axes(module, leaf, patch_size)
    return Row(path, layers, _swapped(axes) if layout == "sd3" and module in _SWAPPED else axes, stacked)


def _swapped(axes: Axes) -> Axes:
    """With the halves of the output features in the other order."""

    def swap(a: np.ndarray) -> np.ndarray:
        return np.concatenate(np.split(a, 2)[::-1])

    return Axes(lambda a: axes.to_ours(swap(a)), lambda a: swap(axes.to_torch(a)))
