"""From REPA's and diffusers' files of an MMDiT to a network of ours."""

import logging

import jax.numpy as jnp
import numpy as np

from ledit_jax.config import Config
from ledit_jax.convert.dit import check_positions, position_table
from ledit_jax.convert.dit_config import check_model
from ledit_jax.convert.files import StoredTensors
from ledit_jax.convert.mmdit import POOLED, POSITIONS, mmdit_table
from ledit_jax.convert.mmdit_config import mmdit_config
from ledit_jax.convert.rows import convert_rows, read_description, read_finite
from ledit_jax.convert.tables import Shapes, check_table, flatten_params, param_shapes
from ledit_jax.diffusion import make_process
from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.models import Params, abstract_params, make_network
from ledit_jax.models.condition import EMPTY_CAPTION

_log = logging.getLogger(__name__)


def read_mmdit(
    stored: StoredTensors, layout: str, origin: str, model: str | None, num_heads: int | None, objective: str | None
) -> tuple[Params, Config, int]:
    """(parameters, config, step) of what `mmdit_layout` recognised; the rest as for `convert_to_checkpoint`.

    The empty caption, which only files of ours hold, is zero where it is missing: sampling and training put theirs in
    its place. Raises ConfigError for whatever is not exactly such a network.
    """
    if objective == "noise":
        raise ConfigError(f"input={stored.path} is an MMDiT, which learns a flow: leave objective out")
    positions = read_finite(stored, [name for name in stored.shapes if name == POSITIONS[layout]])
    table = next(iter(positions.values()), None)
    has_positions = table is not None and bool(table.any())
    config, step = read_description(stored)
    config = config or mmdit_config(stored.shapes, layout, stored.settings, model, num_heads, has_positions)
    if model:
        check_model(model, config)
    like = abstract_params(make_network(config, make_process(config)))
    needed = param_shapes(flatten_params(like))
    given = {path: shape for path, shape in needed.items() if path != EMPTY_CAPTION or path in stored.shapes}
    rows = mmdit_table(given, layout, config.model.patch_size)
    check_table(rows, stored.shapes, given, _constants(stored, layout, config, has_positions))
    if has_positions:
        check_positions(table, config)
    _check_pooled(stored)
    _log.info("%s is a %s", stored.path, _describe(config, layout, origin))
    if EMPTY_CAPTION in given:
        return convert_rows(stored, rows, like), config, step
    _log.info("it does not hold the states of the empty caption: those of the text encoder will be taken")
    without = {name: leaf for name, leaf in like.items() if name != EMPTY_CAPTION}
    zeros = jnp.zeros(needed[EMPTY_CAPTION], jnp.float32)
    return convert_rows(stored, rows, without) | {EMPTY_CAPTION: zeros}, config, step


def _constants(stored: StoredTensors, layout: str, config: Config, has_positions: bool) -> Shapes:
    """What the file holds beside the parameters: the table of positions, and diffusers' embedding of pooled text."""
    pooled = {name: shape for name, shape in stored.shapes.items() if name.startswith(POOLED)}
    table, name = position_table(config), POSITIONS[layout]
    if table is not None:
        return pooled | {name: table.shape}
    is_blank = name in stored.shapes and not has_positions  # of any size
    return pooled | ({name: stored.shapes[name]} if is_blank else {})


def _check_pooled(stored: StoredTensors) -> None:
    """Raises CheckpointError where pooled text, which nothing here has, is told to diffusers' network."""
    for name, array in stored.read([name for name in stored.shapes if name.startswith(POOLED)]).items():
        if np.any(array):
            raise CheckpointError(
                f"{stored.path}: {name} is not zero, so this network is told pooled text as Stable Diffusion 3 is, and "
                "an MMDiT is told the time alone"
            )


def _describe(config: Config, layout: str, origin: str) -> str:
    model = config.model
    family = "LEMMDiT" if model.conv != "none" else "MMDiT" if model.position == "sincos" else "NoPE MMDiT"
    origin = "of diffusers" if layout == "sd3" else origin
    return (
        f"{family} ({origin}): depth {model.depth}, width {model.width}, {model.num_heads} heads, patch "
        f"{model.patch_size}, text states of width {config.text.width}, {config.in_channels} channels, trained at "
        f"{config.data.image_height}x{config.data.image_width}"
    )
