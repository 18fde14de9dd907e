"""LEDiT in JAX: a diffusion transformer without positional encoding that samples beyond its training size."""
