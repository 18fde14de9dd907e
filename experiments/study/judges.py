"""The judges of the study, one for each source, and what each is able to see.

  python -m experiments.study.judges --source=digits --out=assets/judges
  python -m experiments.study.judges --source=digits --out=assets/judges --train=false --json=judge.json

Trains the judge of digits, glyphs or shapes on real training images of five sizes, writes it to OUT/SOURCE.npz, and
prints what it makes of real held-out images that were distorted: the share read right, and both Fréchet distances to
real training images, in multiples of those of as many undistorted ones. --train=false prints the table of what is
there. Those of digits and glyphs are shipped; another is trained by the first study that needs it and kept in
runs/judges, that of photographs in the study's workdir.
"""

import functools
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import flags

from experiments.judges.distortions import DISTORTIONS
from experiments.judges.judge import Judge, JudgeRecipe
from experiments.sizes import Size, size_name
from experiments.study.config import StudyConfig
from experiments.study.images import DRAWN, Samples, real_images
from ledit_jax import cli
from ledit_jax.errors import DataError
from ledit_jax.evaluation.frechet import frechet_distance
from ledit_jax.evaluation.tables import markdown
from ledit_jax.files import write_json

SHIPPED = Path(__file__).parents[2] / "assets" / "judges"
KEPT = Path(__file__).parents[2] / "runs" / "judges"
SIZES: tuple[Size, ...] = ((16, 16), (24, 24), (32, 32), (16, 32), (32, 16))
"""What a judge of a drawn source is trained on; fixed, so that every study of a source has the same judge."""
_TABLE_SIZES: tuple[Size, ...] = ((16, 16), (24, 24), (32, 32), (16, 32))
_SHOWN = 300
"""Images of each split behind a column of the table."""


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
        judge = Judge.train(recipe, [(s.images, s.labels) for s in map(real, recipe.sizes)])
        path.parent.mkdir(parents=True, exist_ok=True)
        judge.save(path)
        return judge


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


def sensitivity(judge: Judge, train: Samples, test: Samples) -> dict[str, tuple[float, float, float]]:
    """Of each distortion of the real `test` images: (share read right, distance, distance of patches).

    Distances are to `train`, in multiples of those of `test` itself, whose row has the name "real".
    """
    known = judge.read(train.images)

    def measure(images):
        read = judge.read(images)
        whole = frechet_distance(*read.statistics, *known.statistics)
        return read.accuracy(test.labels), whole, frechet_distance(*read.patch_statistics, *known.patch_statistics)

    figures = {"real": measure(test.images)}
    figures |= {name: measure(distort(test.images)) for name, distort in DISTORTIONS.items()}
    _, whole, patches = figures["real"]
    return {name: (share, one / whole, two / patches) for name, (share, one, two) in figures.items()}


def first_images(source: str, size: Size, split: str) -> Samples:
    """So many real images as the table has."""
    return real_images(source, *size, split, _SHOWN)


def sensitivity_table(source: str, figures: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Markdown: what is done to real images down, sizes across; share read right, and both distances' multiples.

    figures: size -> distortion -> what `sensitivity` found.
    """
    names = next(iter(figures.values()))
    lines = [[name, *("{:.0%}, {:.1f}, {:.1f}".format(*found[name]) for found in figures.values())] for name in names]
    return markdown([source, *figures], lines)


def main() -> None:
    source, path = _SOURCE.value, Path(_OUT.value) / f"{_SOURCE.value}.npz"
    recipe = drawn_recipe(source)
    if _TRAIN.value:
        sets = [(s.images, s.labels) for s in (real_images(source, *size, "train") for size in recipe.sizes)]
        path.parent.mkdir(parents=True, exist_ok=True)
        Judge.train(recipe, sets).save(path)
        print(f"wrote {path}")
    judge, figures = Judge.load(path, recipe), {}
    for size in _TABLE_SIZES:
        train, test = (first_images(source, size, split) for split in ("train", "test"))
        found = sensitivity(judge, train, test)
        figures[size_name(size)] = {name: [float(f"{v:.4g}") for v in values] for name, values in found.items()}
    print("share read right, and the Fréchet distances of whole images and patches as multiples of real ones':\n")
    print(sensitivity_table(source, figures))
    if _JSON.value:
        command = shlex.join(["python", "-m", "experiments.study.judges", *sys.argv[1:]])
        write_json(Path(_JSON.value), {"command": command, "source": source, "figures": figures})


if __name__ == "__main__":
    _SOURCE = flags.DEFINE_enum("source", "digits", DRAWN, "What it judges.")
    _OUT = flags.DEFINE_string("out", None, "Folder of the judges.")
    _TRAIN = flags.DEFINE_bool("train", True, "Whether to train it anew.")
    _JSON = flags.DEFINE_string("json", None, "File that the figures go to as well.")
    flags.mark_flag_as_required("out")
    cli.run(main, __doc__)
