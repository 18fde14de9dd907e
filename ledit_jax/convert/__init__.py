"""Weights between PyTorch checkpoints and ours: name tables, checked shapes, pure functions on NumPy arrays."""

from collections.abc import Sequence

from ledit_jax.config import ConfigError


class ConversionError(ConfigError):
    """Weights that do not fit the model; every name at fault is listed at once, on one line."""

    def __init__(
        self,
        missing: Sequence[str] = (),
        unmapped: Sequence[str] = (),
        wrong_shape: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]] = (),
    ):
        """Names that are needed and not there, names that nothing takes, and (name, shape there, shape needed)."""
        self.missing, self.unmapped, self.wrong_shape = tuple(missing), tuple(unmapped), tuple(wrong_shape)
        shapes = [f"{name} is {found} and must be {needed}" for name, found, needed in wrong_shape]
        parts = {"missing": self.missing, "not part of this model": self.unmapped, "wrong shape": shapes}
        faults = "; ".join(f"{what} ({len(names)}): {', '.join(names)}" for what, names in parts.items() if names)
        super().__init__(f"weights do not fit the model: check the file, and that it is of this model: {faults}")
