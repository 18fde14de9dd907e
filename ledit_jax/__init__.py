"""LEDiT in JAX: a diffusion transformer without positional encoding that samples beyond its training size."""

from ledit_jax.sampling.pipeline import LEDiTPipeline, load_model

__all__ = ["LEDiTPipeline", "load_model"]
