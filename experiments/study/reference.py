"""What a study's samples are held against: real images at each size, and a judge that was trained on them alone."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from experiments.duplication import rank_among_real, self_similarity
from experiments.judge import ImageClassifier
from experiments.photo_judge import PhotoClassifier
from experiments.report import MAX_REAL, Samples, count_objects, real_images, train_judge
from experiments.study.config import Size, StudyConfig
from ledit_jax.data.image_folder import ImageFolder
from ledit_jax.data.transforms import center_crop, to_array, to_image
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.frechet import frechet_distance, gaussian_statistics
from ledit_jax.progress import progress_bar


@dataclass(frozen=True)
class Figures:
    """What is measured of a cell's images."""

    num_samples: int
    accuracy: float
    """Share, 0 to 1, that the judge reads as the class asked for."""
    frechet: float
    """Distance to the real training images rendered at this size, in the judge's features; lower is better."""
    duplication: float
    """See `duplication_score`: 0.5 is what real images get, 1 a tiling."""
    objects: float | None
    """Mean connected shapes per image, where a real one has exactly 1 (shapes only)."""


@dataclass(frozen=True)
class _Real:
    """Statistics of the real training images of one size."""

    statistics: tuple[Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]
    similarity: Float[np.ndarray, " N"]
    labels: Integer[np.ndarray, " N"]


class Reference:
    """Measures samples of any size against real images of that size."""

    def __init__(
        self,
        real: Callable[[int, int, str], Samples],
        judge: ImageClassifier | PhotoClassifier,
        counts_objects: bool,
    ):
        """real(height, width, split): images of the split "train" or "test". judge: trained on "train" alone."""
        self._real, self._judge, self._counts_objects = real, judge, counts_objects
        self._training = functools.cache(self._describe_training)

    def measure(self, samples: Samples) -> Figures:
        """Figures of samples, in whatever size they have."""
        training = self._training(*samples.size)
        drawn = gaussian_statistics(self._judge.features(samples.images))
        similarity = self_similarity(samples.images)
        return Figures(
            num_samples=len(samples.labels),
            accuracy=self._judge.accuracy(samples.images, samples.labels),
            frechet=frechet_distance(*drawn, *training.statistics),
            duplication=rank_among_real(similarity, samples.labels, training.similarity, training.labels),
            objects=count_objects(samples.images) if self._counts_objects else None,
        )

    def measure_real(self, size: Size, count: int) -> Figures:
        """Figures of up to `count` real held-out images, spread over the classes: what a perfect model would get."""
        return self.measure(self.held_out(size, count))

    def held_out(self, size: Size, count: int) -> Samples:
        """Up to `count` real held-out images, classes in turn."""
        test = self._real(*size, "test")
        order = np.argsort(test.labels, kind="stable")[np.linspace(0, len(test.labels) - 1, count).astype(int)]
        order = np.unique(order) if count > len(test.labels) else order
        return Samples(test.images[order], test.labels[order])

    def _describe_training(self, height: int, width: int) -> _Real:
        train = self._real(height, width, "train")
        statistics = gaussian_statistics(self._judge.features(train.images))
        return _Real(statistics, self_similarity(train.images), train.labels)


def make_reference(study: StudyConfig, folder: Path | None) -> Reference:
    """The reference of a study; for photographs `folder` holds train and test (see `photos.split_images`)."""
    source = study.experiment.data.source
    if folder is None:
        return Reference(functools.partial(real_images, source), train_judge(source), source == "shapes")
    channels = study.experiment.data.image_channels
    real = functools.partial(_real_photographs, folder, channels)
    judge_sizes = sorted({study.trained_size, *study.image_sizes})
    judge = PhotoClassifier.train(
        [(s.images, s.labels) for s in (real(*size, "train", None) for size in judge_sizes)],
        num_classes=study.experiment.model.num_classes,
        num_steps=study.judge_steps,
        seed=0,
    )
    return Reference(real, judge, counts_objects=False)


@functools.cache
def _real_photographs(
    folder: Path, channels: int, height: int, width: int, split: str, most: int | None = MAX_REAL
) -> Samples:
    """Images of a split, evenly over its classes, cut and reduced to a size as training does it."""
    source = ImageFolder(str(folder / split), channels)
    count = len(source) if most is None else min(len(source), most)
    images, labels = [], []
    with progress_bar(f"read {split} {height}x{width}", count, "image", disable=count <= MAX_REAL) as bar:
        for index in np.linspace(0, len(source) - 1, count).astype(int).tolist():
            record = source[index]
            smallest = min(record["image"].shape[:2])
            if max(height, width) > smallest:
                raise ConfigError(
                    f"size {height}x{width} is larger than the real images ({smallest} pixels a side): there is "
                    "nothing to compare with, leave it out"
                )
            images.append(to_array(center_crop(to_image(record["image"]), height, width), channels))
            labels.append(record["label"])
            bar.update()
    return Samples(np.stack(images), np.array(labels))
