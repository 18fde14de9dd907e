"""The judge's network: convolutions at the image's own resolution, and what they find at several depths.

B batch, h w height and width in pixels, C channels, D features.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

GRID = 4
"""Cells of a side that the deepest map is averaged to, whatever the image's size: the layout."""
HIDDEN = 64
_CONVS = 2
"""3x3 convolutions of a stage. After each of the first two stages, places are averaged in squares of 2 x 2."""

Weights = dict[str, Float[Array, "..."]]
"""By name; all that is learned."""


def init_weights(key: jax.Array, channels: int, widths: Sequence[int], num_classes: int) -> Weights:
    """He's initialisation; biases are zero. widths: channels of the three stages."""
    weights = {}
    for stage, width in enumerate(widths):
        for conv in range(_CONVS):
            key, here = jax.random.split(key)
            weights[f"conv{stage}{conv}"] = _he(here, (3, 3, channels, width))
            weights[f"bias{stage}{conv}"] = jnp.zeros(width)
            channels = width
    first, second = jax.random.split(key)
    weights["hidden"] = _he(first, (GRID * GRID * channels, HIDDEN))
    weights["hidden_bias"] = jnp.zeros(HIDDEN)
    weights["classes"] = _he(second, (HIDDEN, num_classes)) / 4
    return weights


def _he(key: jax.Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    fan_in = 1
    for size in shape[:-1]:
        fan_in *= size
    return jax.random.normal(key, shape) * (2 / fan_in) ** 0.5


def run(
    weights: Weights, x: Float[Array, "B h w C"]
) -> tuple[list[Float[Array, "B _"]], Float[Array, "B p q _"], Float[Array, "B classes"]]:
    """(what each depth finds, what each patch shows, logits); x from -1 to 1, of 8 pixels or more a side.

    The depths are the means over places of the three stages and the hidden layer, which knows the layout. Patches are
    the places of the second stage: each has seen 16 pixels a side, and one is read for every 4 x 4 pixels.
    """
    depths, patches = [], None
    for stage in range(3):
        for conv in range(_CONVS):
            kernel, bias = weights[f"conv{stage}{conv}"], weights[f"bias{stage}{conv}"]
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x + bias)
        depths.append(x.mean(axis=(1, 2)))
        if stage < 2:
            x = _pool(x)
        if stage == 1:
            patches = x
    cells = jax.image.resize(x, (len(x), GRID, GRID, x.shape[-1]), "linear").reshape(len(x), -1)
    hidden = jax.nn.relu(cells @ weights["hidden"] + weights["hidden_bias"])
    return [*depths, hidden], patches, hidden @ weights["classes"]


def _pool(x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C"]:
    B, h, w, C = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(B, h // 2, 2, w // 2, 2, C).mean(axis=(2, 4))
