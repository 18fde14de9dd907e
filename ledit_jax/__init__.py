"""LEDiT in JAX: a diffusion transformer without positional encoding that samples beyond its training size."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ledit_jax.sampling.loading import load_model
    from ledit_jax.sampling.pipeline import LEDiTPipeline

__all__ = ["LEDiTPipeline", "load_model"]


def __getattr__(name: str) -> Any:
    """Imported when asked for: it takes seconds, which a command that is refused need not wait for."""
    if name not in __all__:
        raise AttributeError(f"module 'ledit_jax' has no attribute {name!r}")
    from ledit_jax.sampling import loading, pipeline

    return getattr(loading if name == "load_model" else pipeline, name)
