"""LookHere (arXiv 2405.13985): heads that look one way each, and logits that fall with distance; no positions besides.

The 180-degree variant: a directed head sees the half-plane up, down, left or right of its query, the query's own row
or column included; the remaining heads see everything. Constants as in GreenCUBIC/lookhere.
"""

import functools

import numpy as np
from jaxtyping import Float

from ledit_jax.errors import ConfigError

_DIRECTIONS = 4
_UNDIRECTED_SLOPES = (2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8)
_LAYER_SLOPES = (1.5, 0.5)
# As in ops.attention: vanishes in a float32 softmax, and no sum of two overflows.
_HIDDEN = -1e30


@functools.lru_cache(maxsize=8)
def lookhere_bias(height: int, width: int, num_heads: int) -> Float[np.ndarray, "N T T"]:
    """What is added to the logits of [head, query, key] before the layer's slope: -slope(head) * distance.

    Distances are Euclidean, in tokens; keys outside a head's view have -1e30. From 12 heads on, eight are directed,
    two for each direction, with slopes 1/2 and 1/4; with fewer, four, with 1/2. The others have 1/4, 1/16, 1/64,
    1/256. Raises ConfigError for fewer than 4 heads.
    """
    if num_heads < _DIRECTIONS:
        raise ConfigError(f"model.num_heads={num_heads} is too few for model.position=lookhere: use 4 or more")
    index = np.arange(height * width)
    row, col = index // width, index % width
    down, right = row[None, :] - row[:, None], col[None, :] - col[:, None]  # [query, key]
    distance = np.hypot(down, right).astype(np.float32)
    views = (down <= 0, down >= 0, right <= 0, right >= 0)
    rounds = 2 if num_heads >= 12 else 1
    directed = [np.where(view, -(2.0 ** -(turn + 1)) * distance, _HIDDEN) for turn in range(rounds) for view in views]
    rest = num_heads - len(directed)
    slopes = [_UNDIRECTED_SLOPES[i if rest < 4 else i * 4 // rest] for i in range(rest)]
    return np.stack([*directed, *(-slope * distance for slope in slopes)]).astype(np.float32)


def layer_slopes(depth: int) -> Float[np.ndarray, " L"]:
    """Factor of the distance in each layer: falls evenly from 1.5 to 0.5."""
    return np.linspace(*_LAYER_SLOPES, depth, dtype=np.float32)
