"""What a study's samples are held against: real pictures at each size, and a judge that was trained on them alone."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from ledit_jax.analysis.duplication import rank_among_real, self_similarity
from ledit_jax.analysis.report import MAX_REAL, Samples, count_objects, real_pictures, train_judge
from ledit_jax.analysis.study_config import Size, StudyConfig
from ledit_jax.config import ConfigError
from ledit_jax.data.folder import ImageFolder
from ledit_jax.data.transforms import center_crop, to_array, to_picture
from ledit_jax.evaluation.classifier import PictureClassifier
from ledit_jax.evaluation.frechet import frechet_distance, gaussian_statistics
from ledit_jax.evaluation.photo_classifier import PhotoClassifier
from ledit_jax.progress import progress_bar


@dataclass(frozen=True)
class Figures:
    """What is measured of a cell's pictures."""

    num_samples: int
    accuracy: float
    """Share, 0 to 1, that the judge reads as the class asked for."""
    frechet: float
    """Distance to the real training pictures rendered at this size, in the judge's features; lower is better."""
    duplication: float
    """See `duplication_score`: 0.5 is what real pictures get, 1 a tiling."""
    objects: float | None
    """Mean connected shapes per picture, where a real one has exactly 1 (shapes only)."""


@dataclass(frozen=True)
class _Real:
    """Statistics of the real training pictures of one size."""

    statistics: tuple[Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]
    similarity: Float[np.ndarray, " N"]
    labels: Integer[np.ndarray, " N"]


class Reference:
    """Measures samples of any size against real pictures of that size."""

    def __init__(
        self,
        real: Callable[[int, int, str], Samples],
        judge: PictureClassifier | PhotoClassifier,
        counts_objects: bool,
    ):
        """real(height, width, split): pictures of the split "train" or "test". judge: trained on "train" alone."""
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
        """Figures of up to `count` real held-out pictures, spread over the classes: what a perfect model would get."""
        return self.measure(self.held_out(size, count))

    def held_out(self, size: Size, count: int) -> Samples:
        """Up to `count` real held-out pictures, classes in turn."""
        test = self._real(*size, "test")
        order = np.argsort(test.labels, kind="stable")[np.linspace(0, len(test.labels) - 1, count).astype(int)]
        order = np.unique(order) if count > len(test.labels) else order
        return Samples(test.images[order], test.labels[order])

    def _describe_training(self, height: int, width: int) -> _Real:
        train = self._real(height, width, "train")
        statistics = gaussian_statistics(self._judge.features(train.images))
        return _Real(statistics, self_similarity(train.images), train.labels)


def make_reference(study: StudyConfig, folder: Path | None) -> Reference:
    """The reference of a study; for photographs `folder` holds train and test (see `photos.split_pictures`)."""
    source = study.experiment.data.source
    if folder is None:
        return Reference(functools.partial(real_pictures, source), train_judge(source), source == "shapes")
    channels = study.experiment.data.image_channels
    real = functools.partial(_real_photographs, folder, channels)
    judge_sizes = sorted({study.trained_size, *study.picture_sizes})
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
    """Pictures of a split, evenly over its classes, cut and reduced to a size as training does it."""
    source = ImageFolder(str(folder / split), channels)
    count = len(source) if most is None else min(len(source), most)
    images, labels = [], []
    with progress_bar(f"read {split} {height}x{width}", count, "picture", disable=count <= MAX_REAL) as bar:
        for index in np.linspace(0, len(source) - 1, count).astype(int).tolist():
            record = source[index]
            smallest = min(record["image"].shape[:2])
            if max(height, width) > smallest:
                raise ConfigError(
                    f"size {height}x{width} is larger than the real pictures ({smallest} pixels a side): there is "
                    "nothing to compare with, leave it out"
                )
            images.append(to_array(center_crop(to_picture(record["image"]), height, width), channels))
            labels.append(record["label"])
            bar.update()
    return Samples(np.stack(images), np.array(labels))
