"""The one measure of generated images: real images at each size, and a judge that was trained on them alone."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from experiments.judges.judge import Judge, Reading
from experiments.judges.layout import layout_features
from experiments.judges.scenes import shares as scene_shares
from experiments.sizes import Size
from experiments.study.config import StudyConfig
from experiments.study.images import Samples, count_objects, real_images, real_scenes
from experiments.study.judges import drawn_judge, photo_judge
from experiments.study.photos import real_photographs, split_images
from ledit_jax.data.scenes import Scenes
from ledit_jax.evaluation.duplication import rank_among_real, self_similarity
from ledit_jax.evaluation.frechet import Moments, frechet_distance, gaussian_statistics
from ledit_jax.evaluation.neighbours import NUM_NEIGHBOURS, precision_recall


@dataclass(frozen=True)
class Figures:
    """What is measured of images of one size. Shares are 0 to 1."""

    num_samples: int
    accuracy: float
    """Share that the judge reads as the class asked for, or that is what the caption says."""
    frechet: float | None
    """Distance to the real training images rendered at this size, in the judge's features; lower is better."""
    patches: float | None
    """The same over patches of 16 pixels a side: what small parts look like, wherever they are."""
    layout: float | None
    """The same over `layout_features`: where an image has its light, dark and colours, whatever its texture is."""
    precision: float | None
    """Share among the real training images, by nearest neighbours in those features; None for three images or less."""
    recall: float | None
    """Share of the real training images among these, in the same way."""
    duplication: float | None
    """See `duplication_score`: 0.5 is what real images get, 1 a tiling."""
    objects: float | None
    """Mean connected shapes per image; None for photographs."""
    colour: float | None = None
    """Of scenes, and the only figures beside `accuracy` that they have: shares right in a part, see `Verdict`."""
    shape: float | None = None
    place: float | None = None
    count: float | None = None


@dataclass(frozen=True)
class _Real:
    """What is needed of the real training images of one size."""

    read: Reading
    layout: Moments
    similarity: Float[np.ndarray, " N"]
    labels: Integer[np.ndarray, " N"]


class Reference:
    """Measures images of any size against real ones of that size."""

    def __init__(self, real: Callable[[int, int, str], Samples], judge: Callable[[], Judge], counts_objects: bool):
        """real(height, width, split): images of the split "train" or "test". judge: makes one of "train" alone, and is
        called once, when something is measured."""
        self._real, self._make_judge, self._counts_objects = real, judge, counts_objects
        self._training = functools.cache(self._describe_training)

    @functools.cached_property
    def _judge(self) -> Judge:
        return self._make_judge()

    def measure(self, samples: Samples) -> Figures:
        """Figures of samples, in whatever size they have."""
        training = self._training(*samples.size)
        read = self._judge.read(samples.images)
        precision = recall = None
        if len(read.features) > NUM_NEIGHBOURS:
            precision, recall = precision_recall(training.read.features, read.features)
        return Figures(
            num_samples=len(samples.labels),
            accuracy=read.accuracy(samples.labels),
            frechet=frechet_distance(*read.statistics, *training.read.statistics),
            patches=frechet_distance(*read.patch_statistics, *training.read.patch_statistics),
            layout=frechet_distance(*gaussian_statistics(layout_features(samples.images)), *training.layout),
            precision=precision,
            recall=recall,
            duplication=rank_among_real(
                self_similarity(samples.images), samples.labels, training.similarity, training.labels
            ),
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
        layout = gaussian_statistics(layout_features(train.images))
        return _Real(self._judge.read(train.images), layout, self_similarity(train.images), train.labels)


class SceneReference:
    """Measures scenes by what their captions say: `Samples.labels` are numbers of held-out scenes."""

    def measure(self, samples: Samples) -> Figures:
        """Figures of samples, in whatever size they have."""
        source = Scenes(*samples.size, "test")
        parts = scene_shares(samples.images, [source.request(int(label)) for label in samples.labels])
        unknown = dict.fromkeys(("frechet", "patches", "layout", "precision", "recall", "duplication", "objects"))
        return Figures(len(samples.labels), parts.pop("right"), **unknown, **parts)

    def measure_real(self, size: Size, count: int) -> Figures:
        """Figures of `count` scenes as the data draw them: the judge's own errors."""
        return self.measure(real_scenes(*size, count))


def prepare_images(config: StudyConfig, workdir: Path) -> tuple[StudyConfig, Path | None]:
    """(config, folder): photographs are parted into training and held-out ones in `folder`, which training reads.

    Digits and shapes need nothing, and have no folder.
    """
    if config.experiment.data.source != "image_folder":
        return config, None
    folder = split_images(Path(config.images), workdir / "images")
    data = dataclasses.replace(config.experiment.data, path=str(folder / "train"))
    return dataclasses.replace(config, experiment=dataclasses.replace(config.experiment, data=data)), folder


def make_reference(config: StudyConfig, folder: Path | None) -> Reference | SceneReference:
    """The measure of a study; `folder` is what `prepare_images` returned.

    Its judge is made when something is measured (`judges`). Raises ConfigError for a size that there are no real images
    of.
    """
    source = config.experiment.data.source
    if source == "scenes":
        return SceneReference()
    if folder is None:
        judge = functools.partial(drawn_judge, source)
        return Reference(functools.partial(real_images, source), judge, counts_objects=True)
    real = functools.partial(real_photographs, folder, config.experiment.data.image_channels)
    for size in config.image_sizes:
        real(*size, "test")
    return Reference(real, functools.partial(photo_judge, config, folder, real), counts_objects=False)
