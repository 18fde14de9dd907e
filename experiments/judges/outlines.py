"""The judge of digits and shapes, which are outlines on black: a perceptron over small grey images, of any size."""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from experiments.judges.judge import ImageSet
from ledit_jax.errors import ConfigError

SIDE = 16
"""Images are read as SIDE x SIDE grey ones, whatever their size."""
HIDDEN = 64
"""Width of the hidden layer, and so of the features."""
_CROP = 2.1
"""Half the side of the centred crop, in root mean square distances of the ink from its centre."""


class OutlineJudge:
    """A multi-layer perceptron of one hidden layer (scikit-learn) over small grey images; made by `train`.

    Images are uint8 [B, h, w, C] of any size; ConfigError is raised where C is neither 1 nor 3.
    """

    def __init__(self, network: MLPClassifier):
        self._network = network

    @classmethod
    def train(cls, sets: Sequence[ImageSet], seed: int) -> "OutlineJudge":
        """Trains on sets of real images; N, h and w may differ between sets.

        Give the same images rendered at several sizes, so that an image is read equally well at each of them.
        The same images and seed give the same classifier.
        """
        inputs = np.concatenate([_inputs(images) for images, _ in sets])
        labels = np.concatenate([labels for _, labels in sets])
        network = MLPClassifier((HIDDEN,), alpha=1e-2, learning_rate_init=2e-3, max_iter=30, random_state=seed)
        # One thread: faster for matrices this small, and the result does not depend on the number of cores.
        with threadpool_limits(1), warnings.catch_warnings():
            # The number of passes is fixed on purpose: scikit-learn warns that the loss could still fall.
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(inputs, labels)
        return cls(network)

    def features(self, images: UInt8[np.ndarray, "B h w C"]) -> Float[np.ndarray, "B 64"]:
        """Hidden-layer activations (after the ReLU), for Frechet distances."""
        return np.maximum(_inputs(images) @ self._network.coefs_[0] + self._network.intercepts_[0], 0)

    def predict(self, images: UInt8[np.ndarray, "B h w C"]) -> Integer[np.ndarray, " B"]:
        """The class that each image is read as."""
        return self._network.predict(_inputs(images))

    def accuracy(self, images: UInt8[np.ndarray, "B h w C"], labels: Integer[np.ndarray, " B"]) -> float:
        """Share, 0 to 1, of images that are read as their label."""
        return float(np.mean(self.predict(images) == labels))


def _inputs(images: UInt8[np.ndarray, "B h w C"]) -> Float[np.ndarray, "B 512"]:
    """The image as SIDE x SIDE grey (ITU-R 601 luma, [0, 1]) whatever its aspect, and again centred on its ink.

    The whole image tells where things are and how large, the centred crop what they are. Pillow's bicubic filter
    widens with the reduction, so that shrinking averages over all pixels (no aliasing).
    """
    if images.shape[-1] not in (1, 3):
        raise ConfigError(f"images of {images.shape[-1]} channels cannot be classified: use 1 (grey) or 3 (RGB)")
    pixels = images[..., 0] if images.shape[-1] == 1 else images
    whole = [Image.fromarray(p).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for p in pixels]
    both = [np.stack([np.asarray(grey), _centered(grey)]) for grey in whole]
    return np.array(both).reshape(len(images), 2 * SIDE * SIDE) / 255.0


def _centered(grey: Image.Image) -> UInt8[np.ndarray, "16 16"]:
    """The part of an image around its centre of brightness, as large as the brightness spreads, at SIDE x SIDE."""
    ink = np.asarray(grey, np.float64) + 1e-6  # an empty image has its centre in the middle
    rows, columns = ink.sum(axis=1) / ink.sum(), ink.sum(axis=0) / ink.sum()
    places = np.arange(SIDE) + 0.5
    y, x = rows @ places, columns @ places
    half = _CROP * np.sqrt(rows @ (places - y) ** 2 + columns @ (places - x) ** 2)
    to_source = (2 * half / SIDE, 0, x - half, 0, 2 * half / SIDE, y - half)
    return np.asarray(grey.transform((SIDE, SIDE), Image.Transform.AFFINE, to_source, Image.Resampling.BICUBIC))
