"""DiT's and LEDiT's networks by PyTorch names: facebookresearch/DiT's (LEDiT adds conv and conv_norm) and diffusers'.

Everything here works on names and shapes; reading and writing files is the caller's.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from ledit_jax.config import Config
from ledit_jax.convert.tables import Axes, Row, Shapes, Table, network_axes
from ledit_jax.errors import CheckpointError, ConversionError
from ledit_jax.models.positions import make_position

# Our modules -> theirs; {} is the block, and several are joined.
_DIT = {
    "patch_embed": ("x_embedder.proj",),
    "timestep_embed.fc1": ("t_embedder.mlp.0",),
    "timestep_embed.fc2": ("t_embedder.mlp.2",),
    "span_embed.fc1": ("r_embedder.mlp.0",),
    "span_embed.fc2": ("r_embedder.mlp.2",),
    "label_embed": ("y_embedder.embedding_table",),
    "conv": ("conv",),
    "conv_norm": ("conv_norm",),
    "blocks.attn.qkv": ("blocks.{}.attn.qkv",),
    "blocks.attn.proj": ("blocks.{}.attn.proj",),
    "blocks.attn.q_norm": ("blocks.{}.attn.q_norm",),
    "blocks.attn.k_norm": ("blocks.{}.attn.k_norm",),
    "blocks.mlp.fc1": ("blocks.{}.mlp.fc1",),
    "blocks.mlp.fc2": ("blocks.{}.mlp.fc2",),
    "blocks.adaln": ("blocks.{}.adaLN_modulation.1",),
    "final_layer.adaln": ("final_layer.adaLN_modulation.1",),
    "final_layer.linear": ("final_layer.linear",),
}
_DIFFUSERS = {
    "patch_embed": ("pos_embed.proj",),
    "timestep_embed.fc1": ("transformer_blocks.0.norm1.emb.timestep_embedder.linear_1",),
    "timestep_embed.fc2": ("transformer_blocks.0.norm1.emb.timestep_embedder.linear_2",),
    "label_embed": ("transformer_blocks.0.norm1.emb.class_embedder.embedding_table",),
    "blocks.attn.qkv": tuple(f"transformer_blocks.{{}}.attn1.to_{name}" for name in "qkv"),
    "blocks.attn.proj": ("transformer_blocks.{}.attn1.to_out.0",),
    "blocks.mlp.fc1": ("transformer_blocks.{}.ff.net.0.proj",),
    "blocks.mlp.fc2": ("transformer_blocks.{}.ff.net.2",),
    "blocks.adaln": ("transformer_blocks.{}.norm1.linear",),
    "final_layer.adaln": ("proj_out_1",),
    "final_layer.linear": ("proj_out_2",),
}
LAYOUTS = {"dit": _DIT, "diffusers": _DIFFUSERS}
_SIGNS = {
    "dit": ("x_embedder.", "t_embedder.", "y_embedder.", "final_layer."),
    "diffusers": ("transformer_blocks.", "proj_out_1."),
}
POSITIONS = {"dit": "pos_embed", "diffusers": "pos_embed.pos_embed"}
_EMBEDDER_COPY = re.compile(r"transformer_blocks\.[1-9]\d*(\.norm1\.emb\..+)")
_OUTPUT = "final_layer.linear."


def dit_layout(names: Iterable[str]) -> str | None:
    """Whose names these are, "dit" or "diffusers"; None if they are no DiT's."""
    found = [layout for layout, signs in _SIGNS.items() if any(name.startswith(signs) for name in names)]
    return found[0] if found else None


def output_features(shapes: Shapes, layout: str) -> int:
    """How many numbers the last layer makes of each token; 0 where it is missing."""
    return shapes.get(f"{LAYOUTS[layout]['final_layer.linear'][0]}.bias", (0,))[0]


def dit_table(shapes: Shapes, layout: str, patch_size: int, convention: str = "noise_time") -> Table:
    """One row for each of our parameters; layout is "dit" or "diffusers". shapes: of ours, by dotted path.

    convention: `flow.convention`; SiT's velocities lead to data and ours to noise, so the last layer changes its sign.
    Raises ConversionError for parameters that have no names in such files: those of some baselines.
    """
    if unnamed := [path for path in shapes if path.rpartition(".")[0] not in LAYOUTS[layout]]:
        raise ConversionError(unmapped=unnamed)
    rows = (_row(path, shape, LAYOUTS[layout], patch_size) for path, shape in shapes.items())
    return tuple(_negated(row) if convention == "sit" and row.path.startswith(_OUTPUT) else row for row in rows)


def _row(path: str, shape: tuple[int, ...], modules: Mapping[str, tuple[str, ...]], patch_size: int) -> Row:
    module, _, leaf = path.rpartition(".")
    stacked = module.startswith("blocks.")
    kind = "bias" if leaf == "bias" else "weight"
    layers = [[f"{name}.{kind}".format(i) for name in modules[module]] for i in range(shape[0] if stacked else 1)]
    return Row(path, tuple(map(tuple, layers)), network_axes(module, leaf, patch_size), stacked)


def _negated(row: Row) -> Row:
    axes = Axes(lambda a: -row.axes.to_ours(a), lambda a: -row.axes.to_torch(a))
    return dataclasses.replace(row, axes=axes)


def position_shapes(config: Config, shapes: Shapes, layout: str) -> Shapes:
    """The fixed table that a file must hold beside the parameters, or may: diffusers' files leave it out."""
    name, table = POSITIONS[layout], position_table(config)
    if table is None or (layout == "diffusers" and name not in shapes):
        return {}
    return {name: table.shape}


def position_table(config: Config) -> np.ndarray | None:
    """DiT's pos_embed for the training size, float32 [1, T, D]; None for a model without a fixed table."""
    grid, width = config.token_grid(), config.model.width
    table = make_position(config.model, grid).fixed_table(grid, width)
    return None if table is None else table.reshape(1, -1, width)


def check_positions(table: np.ndarray, config: Config) -> None:
    """Raises ConfigError unless `table` is what the model computes, up to the rounding of another machine."""
    off = float(np.abs(table - position_table(config)).max())
    if not off < 1e-4:
        raise CheckpointError(
            f"pos_embed is not DiT's sin/cos table (off by {off:.3g}): learned or interpolated positions have no place "
            "in this model"
        )


def embedder_copies(names: Iterable[str]) -> dict[str, str]:
    """diffusers gives every block its own copy of DiT's one embedder: name -> the same of block 0."""
    matches = [_EMBEDDER_COPY.fullmatch(name) for name in names]
    return {match[0]: f"transformer_blocks.0{match[1]}" for match in matches if match}
