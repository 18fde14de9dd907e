"""The extrapolation study: trains the listed methods alike, samples them at sizes they never saw, and measures.

  python -m experiments.study --config=configs/study_digits.py --workdir=runs/study_digits
  python -m experiments.study --config=configs/study_photos.py --workdir=runs/study_photos \\
      --config.images=PHOTOS.zip

--config.methods=dit,ledit chooses methods, --config.sizes="'24x24','32x32'" sizes, --config.seeds=0,1,2 seeds. The same
command again goes on where it was stopped and tries again what failed; what is finished is kept. WORKDIR gets
table.md, table.csv, results.json, a chart for each metric, the losses, and images by size and by method.
Exit code 0 is done (or stopped by a signal, with everything saved), 1 some cells failed, 2 a setting cannot work.
"""

import shlex
import sys
from pathlib import Path

from absl import flags

from experiments.study.arms import Interrupted
from experiments.study.config import StudyConfig
from experiments.study.run import run_study
from ledit_jax import cli


def main() -> None:
    study = cli.load_config(StudyConfig.from_dict)
    try:
        cells = run_study(study, Path(_WORKDIR.value), shlex.join(["python", "-m", "experiments.study", *sys.argv[1:]]))
    except Interrupted as stopped:
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
    cli.require("config", "workdir")
    cli.run(main, __doc__)
