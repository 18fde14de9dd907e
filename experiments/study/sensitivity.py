"""What a study's figures are able to see: real held-out images that were distorted, measured as generated ones are.

  python -m experiments.study.sensitivity --config=configs/study_glyphs.py --workdir=runs/sensitivity/glyphs
  python -m experiments.study.sensitivity --config=configs/study_photos.py:flow --workdir=runs/photos_flow \\
      --config.images=PHOTOS.zip

--config is a study, whose judge and sizes it takes, and --workdir, for photographs, that study's, which has the judge;
nothing is trained but a judge that is not there. Prints a table, and writes it to WORKDIR/sensitivity.json.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from experiments.judges.distortions import DISTORTIONS
from experiments.sizes import Size, size_name
from experiments.study.config import StudyConfig
from experiments.study.images import Samples
from experiments.study.reference import Reference, make_reference, prepare_images
from ledit_jax import cli
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.tables import markdown
from ledit_jax.files import check_place, write_json

Seen = tuple[float, float, float, float]
"""Share read right; then the distances of whole images, of patches and of layouts, in multiples of real images' own."""
_SHOWN = 300
"""Images behind a cell of the table."""


def sensitivity(reference: Reference, size: Size) -> dict[str, Seen]:
    """What is measured of real held-out images of a size, "real", and of each distortion of them.

    Raises ConfigError for an odd side, since some distortions halve images.
    """
    if size[0] % 2 or size[1] % 2:
        raise ConfigError(f"size {size_name(size)} has an odd side: leave it out, some distortions halve images")
    test = reference.held_out(size, _SHOWN)
    images = {"real": test.images} | {name: distort(test.images) for name, distort in DISTORTIONS.items()}
    figures = {name: reference.measure(Samples(distorted, test.labels)) for name, distorted in images.items()}
    real = figures["real"]
    return {
        name: (f.accuracy, f.frechet / real.frechet, f.patches / real.patches, f.layout / real.layout)
        for name, f in figures.items()
    }


def sensitivity_table(title: str, seen: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Markdown: what is done to real images down, sizes across; the share, and the three multiples.

    seen: name of the size -> distortion -> what `sensitivity` found.
    """
    names = next(iter(seen.values()))
    form = "{:.0%}, {:.1f}, {:.1f}, {:.1f}"
    lines = [[name, *(form.format(*found[name]) for found in seen.values())] for name in names]
    return markdown([title, *seen], lines)


def main() -> None:
    workdir = Path(_WORKDIR.value)
    check_place(workdir)
    config, folder = prepare_images(cli.load_config(StudyConfig.from_dict), workdir)
    reference = make_reference(config, folder)
    if not isinstance(reference, Reference):
        raise ConfigError("--config: scenes are judged by their captions, without a judge that learned: use another")
    seen = {}
    for size in config.image_sizes:
        found = sensitivity(reference, size)
        seen[size_name(size)] = {name: [float(f"{v:.4g}") for v in values] for name, values in found.items()}
    title = "photographs" if folder else config.experiment.data.source
    print("share read right; distances of whole images, of patches and of layouts as multiples of real images' own:\n")
    print(sensitivity_table(title, seen))
    command = shlex.join(["python", "-m", "experiments.study.sensitivity", *sys.argv[1:]])
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "sensitivity.json", {"command": command, "source": title, "figures": seen})


if __name__ == "__main__":
    cli.define_config_flag("Study, for example configs/study_digits.py.")
    _WORKDIR = flags.DEFINE_string("workdir", None, "The study's, for photographs; any other place for the rest.")
    flags.declare_key_flag("config")
    cli.require("config", "workdir")
    cli.run(main, __doc__)
