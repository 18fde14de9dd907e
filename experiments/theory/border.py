"""Which tokens of a grid lie at its border, where a convolution's zero padding tells them their place."""

import numpy as np
from jaxtyping import Bool

from ledit_jax.errors import ConfigError


def inside(height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The tokens that do not lie at the border. Raises ConfigError for a grid that has none."""
    if min(height, width) < 3:
        raise ConfigError(f"a grid of {height}x{width} tokens has none inside its border: take one of 3x3 or more")
    return np.pad(np.ones((height - 2, width - 2), bool), 1)
