"""The judge of generated images: a small convolutional network that reads each image at its own resolution.

It is trained on real images alone, of several sizes, and kept in a file with its recipe. A judge that reads images
reduced to one small size would not see what happens within a stroke.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Integer, UInt8

from experiments.judges.network import Weights, init_weights, run
from ledit_jax.errors import ConfigError, DataError
from ledit_jax.evaluation.frechet import Moments, gaussian_statistics
from ledit_jax.files import whole_file
from ledit_jax.files.readers import read_npz
from ledit_jax.progress import progress_bar

ImageSet = tuple[UInt8[np.ndarray, "_ _ _ _"], Integer[np.ndarray, " _"]]
"""Images [N, h, w, C] and their labels [N]."""

_BATCH = 64
_READ_AT_ONCE = 100
_SCALED_BY = 500
"""Images of each size that the scales of features are taken from."""
_LEARNING_RATE = 2e-3
_LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R 601, as Pillow has it."""


@dataclass(frozen=True)
class JudgeRecipe:
    """All that a judge's weights depend on."""

    data: str
    """What it was shown, in words or as a fingerprint."""
    sizes: tuple[tuple[int, int], ...]
    num_classes: int
    channels: int = 1
    flip: bool = False
    """Whether to mirror half of the images."""
    steps: int = 600
    widths: tuple[int, int, int] = (16, 32, 48)
    seed: int = 0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


@dataclass(frozen=True)
class Reading:
    """What a judge makes of a set of images."""

    features: Float[np.ndarray, "B D"]
    """What all depths find, in one vector, each depth scaled to a total variance of 1 over the real images."""
    patches: Float[np.ndarray, "P D2"]
    """What each patch of 16 pixels a side shows, one for every 4 x 4 pixels; in the scale of the second depth."""
    predicted: Integer[np.ndarray, " B"]
    """The class that each image is read as."""

    def accuracy(self, labels: Integer[np.ndarray, " B"]) -> float:
        """Share, 0 to 1, of images that are read as their label."""
        return float(np.mean(self.predicted == labels))

    @functools.cached_property
    def statistics(self) -> Moments:
        """Mean and covariance of the features."""
        return gaussian_statistics(self.features)

    @functools.cached_property
    def patch_statistics(self) -> Moments:
        """Mean and covariance of the patches."""
        return gaussian_statistics(self.patches)


class Judge:
    """Reads images of any size from 8 pixels a side on; made by `train` or `load`.

    Images are uint8 [B, h, w, C]. A judge of grey images reads coloured ones as grey; otherwise C must be its own.
    """

    def __init__(self, recipe: JudgeRecipe, weights: dict[str, np.ndarray], scales: Float[np.ndarray, " depths"]):
        """scales: of each depth, the root of the summed variances over the real images."""
        self.recipe, self._scales = recipe, scales
        # float16 is what files hold: a judge from a file is the very judge that was trained.
        self._weights = {name: np.asarray(array, np.float16) for name, array in weights.items()}
        self._run = jax.jit(functools.partial(run, {k: jnp.asarray(v, jnp.float32) for k, v in self._weights.items()}))

    @classmethod
    def train(cls, recipe: JudgeRecipe, sets: Sequence[ImageSet]) -> "Judge":
        """Trains on real images, a set for each of the recipe's sizes, taken in turn.

        Images are moved by up to a sixteenth of a side. Adam with one cosine decay of the rate. Raises ConfigError for
        a label beyond the recipe's classes.
        """
        if max(labels.max() for _, labels in sets) >= recipe.num_classes:
            most = max(int(labels.max()) for _, labels in sets)
            raise ConfigError(f"num_classes={recipe.num_classes} is too few: the images have a class {most}")
        weights = init_weights(jax.random.key(recipe.seed), recipe.channels, recipe.widths, recipe.num_classes)
        optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, recipe.steps))
        step = jax.jit(functools.partial(_train_step, optimizer), donate_argnums=(0, 1))
        opt_state, rng = optimizer.init(weights), np.random.default_rng(recipe.seed)
        with progress_bar("judge", recipe.steps, "step", disable=recipe.steps < 10) as bar:
            for index in range(recipe.steps):
                images, labels = sets[index % len(sets)]
                chosen = rng.integers(len(labels), size=_BATCH)
                x = _augment(images[chosen], recipe.flip, rng)
                weights, opt_state = step(weights, opt_state, _to_input(x), labels[chosen])
                jax.block_until_ready(weights)  # keeps the bar honest
                bar.update()
        judge = cls(recipe, weights, np.ones(4))
        depths = [judge._outputs(images[:_SCALED_BY])[0] for images, _ in sets]
        judge._scales = np.array([np.sqrt(np.concatenate(d).var(axis=0).sum()) for d in zip(*depths, strict=True)])
        return judge

    def save(self, path: Path) -> None:
        """Writes weights and recipe to an .npz."""
        with whole_file(path) as file:
            np.savez_compressed(file, recipe=self.recipe.to_json(), scales=self._scales, **self._weights)

    @classmethod
    def load(cls, path: Path, recipe: JudgeRecipe) -> "Judge":
        """The judge in a file. Raises DataError for one that is not there, is damaged or was made by another recipe."""
        if not path.exists():
            raise DataError(f"{path} does not exist: make it with python -m experiments.study.judges")
        arrays: dict[str, Any] = read_npz(path, lambda name, header: True)
        if str(arrays.pop("recipe", "")) != recipe.to_json():
            raise DataError(f"{path} was made by another recipe: make it with python -m experiments.study.judges")
        return cls(recipe, arrays, arrays.pop("scales"))

    def read(self, images: UInt8[np.ndarray, "B h w C"]) -> Reading:
        """What the judge makes of images."""
        depths, patches, logits = self._outputs(images)
        features = [depth / scale for depth, scale in zip(depths, self._scales, strict=True)]
        patches = patches.reshape(-1, patches.shape[-1]) / self._scales[1]
        return Reading(np.concatenate(features, axis=1), patches, logits.argmax(axis=1))

    def accuracy(self, images: UInt8[np.ndarray, "B h w C"], labels: Integer[np.ndarray, " B"]) -> float:
        """Share, 0 to 1, of images that are read as their label."""
        return self.read(images).accuracy(labels)

    def _outputs(self, images: UInt8[np.ndarray, "B h w C"]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        images = self._with_channels(images)
        found = []
        for start in range(0, len(images), _READ_AT_ONCE):
            batch = images[start : start + _READ_AT_ONCE]
            # Filled up, so that one compiled program serves all.
            outputs = self._run(_to_input(np.resize(batch, (_READ_AT_ONCE, *batch.shape[1:]))))
            found.append(jax.tree.map(functools.partial(_first, len(batch)), outputs))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    def _with_channels(self, images: UInt8[np.ndarray, "B h w C"]) -> UInt8[np.ndarray, "B h w C2"]:
        has, wants = images.shape[-1], self.recipe.channels
        if has == wants:
            return images
        if (has, wants) != (3, 1):
            raise ConfigError(f"images of {has} channels cannot be read by a judge of {wants}: give {wants}")
        return (images @ _LUMA).round().astype(np.uint8)[..., None]


def _first(count: int, outputs: jax.Array) -> np.ndarray:
    return np.asarray(outputs)[:count]


def _to_input(images: UInt8[np.ndarray, "B h w C"]) -> Float[np.ndarray, "B h w C"]:
    return images.astype(np.float32) / 127.5 - 1


def _train_step(optimizer: optax.GradientTransformation, weights: Weights, opt_state: optax.OptState, x, labels):
    def loss(weights):
        return optax.softmax_cross_entropy_with_integer_labels(run(weights, x)[2], labels).mean()

    updates, opt_state = optimizer.update(jax.grad(loss)(weights), opt_state, weights)
    return optax.apply_updates(weights, updates), opt_state


def _augment(x: UInt8[np.ndarray, "B h w C"], flip: bool, rng: np.random.Generator) -> UInt8[np.ndarray, "B h w C"]:
    """Half of them mirrored if `flip`; all moved by one shift per batch, edges repeated."""
    if flip:
        x = np.where(rng.integers(2, size=len(x)).astype(bool)[:, None, None, None], x[:, :, ::-1], x)
    h, w = x.shape[1:3]
    reach = h // 16, w // 16
    down, right = (int(rng.integers(2 * r + 1)) for r in reach)
    padded = np.pad(x, ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0)), "edge")
    return padded[:, down : down + h, right : right + w]
