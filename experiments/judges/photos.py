"""The judge of photographs, which have no outlines on black: a small convolutional network."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Integer, UInt8

from experiments.judges.judge import ImageSet
from ledit_jax.errors import ConfigError
from ledit_jax.progress import progress_bar

SIDE = 32
"""Images are read as SIDE x SIDE, whatever their size."""
WIDTHS = (48, 96, 192)
"""Channels of each stage; the last is also the width of the features."""
_BATCH = 256
_LEARNING_RATE = 2e-3


class _Network(nnx.Module):
    """Per stage two 3x3 convolutions with group normalisation and a halving; the mean over places; a Linear."""

    def __init__(self, channels: int, num_classes: int, rngs: nnx.Rngs):
        self.convs, self.norms = nnx.List(), nnx.List()
        for width in np.repeat(WIDTHS, 2).tolist():
            self.convs.append(nnx.Conv(channels, width, (3, 3), use_bias=False, rngs=rngs))
            self.norms.append(nnx.GroupNorm(width, num_groups=8, rngs=rngs))
            channels = width
        self.head = nnx.Linear(channels, num_classes, rngs=rngs)

    def features(self, x: Float[Array, "B 32 32 C"]) -> Float[Array, "B D"]:
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = jax.nn.relu(norm(conv(x)))
            if index % 2:
                x = nnx.avg_pool(x, (2, 2), (2, 2))
        return x.mean(axis=(1, 2))

    def __call__(self, x: Float[Array, "B 32 32 C"]) -> tuple[Float[Array, "B D"], Float[Array, "B classes"]]:
        """(features, logits)."""
        features = self.features(x)
        return features, self.head(features)


class PhotoJudge:
    """Reads uint8 images [B, h, w, C] of any size, with the C it was trained on; made by `train`."""

    def __init__(self, network: _Network):
        graphdef, self._params = nnx.split(network)
        self._apply = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))

    @classmethod
    def train(cls, sets: Sequence[ImageSet], num_classes: int, num_steps: int, seed: int) -> "PhotoJudge":
        """Trains on sets of real images; N, h and w may differ between sets.

        Half of the images are mirrored and all are moved by up to 3 of the 32 pixels. AdamW, one cosine decay of
        the rate. Raises ConfigError for a label beyond `num_classes`.
        """
        inputs = np.concatenate([_inputs(images) for images, _ in sets])
        labels = np.concatenate([labels for _, labels in sets]).astype(np.int32)
        if labels.max() >= num_classes:
            raise ConfigError(f"num_classes={num_classes} is too few: the images have a class {labels.max()}")
        network = _Network(inputs.shape[-1], num_classes, nnx.Rngs(seed))
        graphdef, params = nnx.split(network)
        rate = optax.cosine_decay_schedule(_LEARNING_RATE, num_steps)
        optimizer = optax.adamw(rate, weight_decay=5e-2)
        step = jax.jit(functools.partial(_train_step, graphdef, optimizer), donate_argnums=(0, 1))
        opt_state, rng = optimizer.init(params), np.random.default_rng(seed)
        with progress_bar("judge", num_steps, "step", disable=num_steps < 10) as bar:
            for _ in range(num_steps):
                chosen = rng.integers(len(labels), size=min(_BATCH, len(labels)))
                batch = _augment(inputs[chosen], rng)
                params, opt_state = step(params, opt_state, batch.astype(np.float32) / 127.5 - 1, labels[chosen])
                jax.block_until_ready(params)  # keeps the bar honest
                bar.update()
        return cls(nnx.merge(graphdef, params))

    def features(self, images: UInt8[np.ndarray, "B h w C"]) -> Float[np.ndarray, "B D"]:
        """Mean activations of the last stage (D = 192), for Frechet distances."""
        return self._run(images)[0]

    def accuracy(self, images: UInt8[np.ndarray, "B h w C"], labels: Integer[np.ndarray, " B"]) -> float:
        """Share, 0 to 1, of images that are read as their label."""
        return float(np.mean(self._run(images)[1].argmax(axis=1) == labels))

    def _run(
        self, images: UInt8[np.ndarray, "B h w C"]
    ) -> tuple[Float[np.ndarray, "B D"], Float[np.ndarray, "B classes"]]:
        """(features, logits)."""
        inputs = _inputs(images)
        size = min(_BATCH, len(inputs))
        features, logits = [], []
        for start in range(0, len(inputs), size):
            batch = inputs[start : start + size]
            # Filled up, so that one compiled program serves all.
            x = np.resize(batch, (size, *batch.shape[1:])).astype(np.float32) / 127.5 - 1
            for results, part in zip((features, logits), self._apply(self._params, x), strict=True):
                results.append(np.asarray(part)[: len(batch)])
        return np.concatenate(features), np.concatenate(logits)


def _train_step(graphdef, optimizer, params, opt_state, x, y):
    def loss(params):
        _, logits = nnx.merge(graphdef, params)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _inputs(images: UInt8[np.ndarray, "N h w C"]) -> UInt8[np.ndarray, "N 32 32 C"]:
    """Resized with a bilinear filter that widens with the reduction, as `jax.image.resize` has it."""
    if images.shape[1:3] == (SIDE, SIDE):
        return images
    wide = jax.image.resize(images.astype(np.float32), (len(images), SIDE, SIDE, images.shape[-1]), "linear")
    return np.asarray(wide).round().clip(0, 255).astype(np.uint8)


def _augment(x: UInt8[np.ndarray, "B 32 32 C"], rng: np.random.Generator) -> UInt8[np.ndarray, "B 32 32 C"]:
    """Half of them mirrored; all moved by one shift per batch of up to 3 pixels each way, edges repeated."""
    mirrored = rng.integers(2, size=len(x)).astype(bool)[:, None, None, None]
    x = np.where(mirrored, x[:, :, ::-1], x)
    down, right = rng.integers(7, size=2)
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), "edge")
    return padded[:, down : down + SIDE, right : right + SIDE]
