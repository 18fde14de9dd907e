"""What a judge of generated images is asked for."""

from typing import Protocol

import numpy as np
from jaxtyping import Float, Integer, UInt8

ImageSet = tuple[UInt8[np.ndarray, "_ _ _ _"], Integer[np.ndarray, " _"]]
"""Images [N, h, w, C] and their labels [N]."""


class Judge(Protocol):
    """Reads images of any size."""

    def features(self, images: UInt8[np.ndarray, "B h w C"]) -> Float[np.ndarray, "B D"]:
        """Vectors in which Fréchet distance, precision and recall are taken."""

    def accuracy(self, images: UInt8[np.ndarray, "B h w C"], labels: Integer[np.ndarray, " B"]) -> float:
        """Share, 0 to 1, of images that are read as their label."""
