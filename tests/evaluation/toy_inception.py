"""A network with Inception's outputs that costs nothing, for tests of what happens before and after it."""

import jax
import jax.numpy as jnp
from flax import nnx

from ledit_jax.models.inception import NUM_FEATURES, NUM_SPATIAL, Inception


class ToyInception(Inception):
    """A random projection of 4x4 pixels, of which sine and cosine are the features."""

    def __init__(self):
        keys = nnx.Rngs(0)
        self.kernel = nnx.Param(0.01 * jax.random.normal(keys.params(), (48, NUM_FEATURES)))
        self.fc = nnx.Linear(NUM_FEATURES, 10, rngs=keys)

    def __call__(self, images):
        pixels = jax.image.resize(images, (len(images), 4, 4, 3), "linear").reshape(len(images), 48)
        projected = pixels @ self.kernel[...]
        return jnp.sin(projected), jnp.cos(projected)[:, :NUM_SPATIAL]
