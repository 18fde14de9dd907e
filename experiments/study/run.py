"""The extrapolation study: trains the listed methods alike, samples them at sizes they never saw, and measures.

  python -m experiments.study.run --config=configs/study_digits.py --workdir=runs/study_digits
  python -m experiments.study.run --config=configs/study_shapes.py --workdir=runs/study_shapes
  python -m experiments.study.run --config=configs/study_photos.py --workdir=runs/study_photos \\
      --config.images=PHOTOS.zip

--config.methods=dit,ledit chooses methods, --config.sizes="'24x24','32x32'" sizes, --config.seeds=0,1,2 seeds. The same
command again goes on where it was stopped and tries again what failed; what is finished is kept. WORKDIR gets
table.md, table.csv, results.json, a figure for each metric and images-HxW.png, with a row for each method.
Exit code 0 is done (or stopped by a signal, with everything saved), 1 some cells failed, 2 a setting cannot work.
"""

import dataclasses
import sys
from pathlib import Path

from absl import flags

from experiments.study.arms import Stopped, check_arms, train_arms
from experiments.study.cells import Cell, load_images, measure_seed
from experiments.study.config import Study, StudyConfig
from experiments.study.photos import split_images
from experiments.study.reference import make_reference
from experiments.study.tables import write_study
from ledit_jax import cli


def run_study(config: StudyConfig, workdir: Path) -> list[Cell]:
    """Trains, samples and measures whatever is not finished yet, and writes the report. Returns every cell.

    An arm whose training fails, and a cell whose sampling or measuring does, is reported with its error and does
    not stop the others. Raises ConfigError before any training, and Stopped after a signal.
    """
    folder = None
    if config.experiment.data.source == "image_folder":
        folder = split_images(Path(config.images), workdir / "images")
        config = _with_images(config, folder / "train")
    study = Study(config, workdir)
    check_arms(study)
    reference = make_reference(config, folder)
    cells = []
    for seed in config.seeds:
        failed = train_arms(study, seed)
        cells += measure_seed(study, seed, reference, failed)
    count = config.per_class * config.experiment.model.num_classes
    real = {size: reference.measure_real(size, count) for size in config.image_sizes}
    write_study(config, cells, real, workdir, lambda cell: load_images(study, cell))
    return cells


def _with_images(config: StudyConfig, path: Path) -> StudyConfig:
    data = dataclasses.replace(config.experiment.data, path=str(path))
    return dataclasses.replace(config, experiment=dataclasses.replace(config.experiment, data=data))


def main() -> None:
    study = cli.load_config(StudyConfig.from_dict)
    try:
        cells = run_study(study, Path(_WORKDIR.value))
    except Stopped as stopped:
        print(stopped)
        return
    failed = sum(cell.figures is None for cell in cells)
    if failed:
        print(f"{failed} of {len(cells)} cells failed; the same command tries them again", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli.define_config_flag("Study, for example configs/study_digits.py.")
    _WORKDIR = flags.DEFINE_string("workdir", None, "Where weights, images and results go.")
    flags.declare_key_flag("config")
    flags.mark_flags_as_required(["config", "workdir"])
    cli.run(main, __doc__)
