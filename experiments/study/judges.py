"""The judges of the study, one for each source.

  python -m experiments.study.judges --source=digits --out=assets/judges

Trains the judge of digits, glyphs or shapes on real training images of five sizes, and writes it to OUT/SOURCE.npz.
Those of digits and glyphs are shipped; another is trained by the first study that needs it and kept in runs/judges,
that of photographs in the study's workdir. experiments.study.sensitivity shows what each is able to see.
"""

import functools
from collections.abc import Callable
from pathlib import Path

from absl import flags

from experiments.judges.judge import ImageSet, Judge, JudgeRecipe
from experiments.sizes import Size
from experiments.study.config import StudyConfig
from experiments.study.images import DRAWN, Samples, real_images
from ledit_jax import cli
from ledit_jax.errors import DataError

SHIPPED = Path(__file__).parents[2] / "assets" / "judges"
KEPT = Path(__file__).parents[2] / "runs" / "judges"
SIZES: tuple[Size, ...] = ((16, 16), (24, 24), (32, 32), (16, 32), (32, 16))
"""What a judge of a drawn source is trained on; fixed, so that every study of a source has the same judge."""


def drawn_recipe(source: str) -> JudgeRecipe:
    """How the judge of a source of DRAWN is made."""
    return JudgeRecipe(data=f"the first 1,500 training images of {source}", sizes=SIZES, num_classes=10)


@functools.cache
def drawn_judge(source: str) -> Judge:
    """The judge of a source of DRAWN: the shipped one, or else trained once and kept in runs/judges."""
    shipped = SHIPPED / f"{source}.npz"
    recipe = drawn_recipe(source)
    if shipped.exists():
        return Judge.load(shipped, recipe)
    return _kept_judge(KEPT / f"{source}.npz", recipe, lambda size: real_images(source, *size, "train"))


def _kept_judge(path: Path, recipe: JudgeRecipe, real: Callable[[Size], Samples]) -> Judge:
    """The judge in a file, if it is this recipe's; or else trained on real(size), for each of its sizes, and kept."""
    try:
        return Judge.load(path, recipe)
    except DataError:  # not there, or another study's
        judge = Judge.train(recipe, _training_sets(recipe, real))
        path.parent.mkdir(parents=True, exist_ok=True)
        judge.save(path)
        return judge


def _training_sets(recipe: JudgeRecipe, real: Callable[[Size], Samples]) -> list[ImageSet]:
    return [(samples.images, samples.labels) for samples in map(real, recipe.sizes)]


def photo_judge(config: StudyConfig, folder: Path, real: Callable[..., Samples]) -> Judge:
    """The judge of a study's photographs at all of its sizes: from the workdir, or else trained and kept there.

    folder: of the parted images. real: as in `reference.make_reference`.
    """
    sizes = tuple(sorted({config.trained_size, *config.image_sizes}))
    recipe = JudgeRecipe(
        data=(folder / "source.json").read_text(),
        sizes=sizes,
        num_classes=config.experiment.model.num_classes,
        channels=config.experiment.data.image_channels,
        flip=config.experiment.data.flip,
        steps=config.judge_steps,
        widths=(24, 48, 64),
    )
    return _kept_judge(folder.with_name("judge.npz"), recipe, lambda size: real(*size, "train", None))


def main() -> None:
    source, path = _SOURCE.value, Path(_OUT.value) / f"{_SOURCE.value}.npz"
    recipe = drawn_recipe(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    Judge.train(recipe, _training_sets(recipe, lambda size: real_images(source, *size, "train"))).save(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    _SOURCE = flags.DEFINE_enum("source", "digits", DRAWN, "What it judges.")
    _OUT = flags.DEFINE_string("out", None, "Folder of the judges.")
    flags.mark_flag_as_required("out")
    cli.run(main, __doc__)
