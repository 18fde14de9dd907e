"""What a network is told about the image that it should draw: the class labels of DiT and LEDiT.

A condition is a pytree of arrays with a leading batch axis. Data, training, guidance and sampling handle it as such,
and ask the network's `ConditionSpec` for the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from ledit_jax.errors import ConfigError


@runtime_checkable
class ConditionSpec(Protocol):
    """How a network's condition is drawn from a record, what its null is, and how a user gives one. Picklable."""

    def from_record(self, record: dict[str, Any]) -> PyTree[np.ndarray]:
        """The condition of one record of a data source, without batch axis."""

    def null(self, batch_size: int) -> PyTree[Array]:
        """The condition that says nothing, for classifier-free guidance."""

    def parse(self, values: Sequence[Any]) -> PyTree[np.ndarray]:
        """What a user asks for, one value for each image, as a condition. Raises ConfigError for what cannot be."""

    def check_source(self, source: Any) -> None:
        """Raises ConfigError for a data source whose records cannot condition this network."""


@dataclass(frozen=True)
class ClassLabels:
    """int32 [B]: a class 0 .. num_classes - 1, or num_classes for none."""

    num_classes: int

    def from_record(self, record: dict[str, Any]) -> np.int32:
        return np.int32(record["label"])

    def null(self, batch_size: int) -> Int[Array, " B"]:
        return jnp.full(batch_size, self.num_classes, jnp.int32)

    def parse(self, values: Sequence[int]) -> Int[np.ndarray, " B"]:
        labels = np.asarray(values)
        if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iufO":
            raise ConfigError(f"class_labels={labels.tolist()} must be a list of one or more class numbers")
        wrong = labels[(labels < 0) | (labels >= self.num_classes)]
        if wrong.size:
            raise ConfigError(
                f"class label {wrong[0]} is out of range: this model's classes are 0 to {self.num_classes - 1}"
            )
        return labels.astype(np.int32)

    def check_source(self, source: Any) -> None:
        if source.num_classes > self.num_classes:
            raise ConfigError(f"model.num_classes={self.num_classes}, but the data has {source.num_classes} classes")
