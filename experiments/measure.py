"""Measures any checkpoint as the study measures its methods: one row for the study's tables, and a sheet of images.

  python -m experiments.measure --config=configs/study_digits.py:flow --checkpoint=assets/digits --workdir=runs/shipped

Judge, figures, images of each class, seeds, sizes and sampler are those of the study in --config, which trains nothing
here; --config.sizes="'16x16','32x32'" chooses sizes. WORKDIR gets table.md, table.csv, results.json and sheet.png.
"""

import dataclasses
import shlex
import sys
from pathlib import Path

from absl import flags

from experiments.study.config import StudyConfig
from experiments.study.draw import StudyPipeline, draw
from experiments.study.reference import Reference, make_reference, prepare_images
from experiments.study.results import Cell, summarise
from experiments.study.sheets import method_sheet
from experiments.study.tables import write_tables
from ledit_jax import cli
from ledit_jax.config import Config
from ledit_jax.errors import ConfigError
from ledit_jax.weights import find_checkpoint, load_description


def measure_checkpoint(
    config: StudyConfig, reference: Reference, checkpoint: Path, name: str, folder: Path, command: str
) -> None:
    """Draws a checkpoint's images with a study's sampler, measures them, and writes the row `name` and a sheet."""
    pipeline = StudyPipeline.from_checkpoint(checkpoint)
    _check_alike(pipeline.config, config.experiment, checkpoint)
    options = pipeline.options(**dataclasses.asdict(config.experiment.sample))
    cells, images = [], {}
    for seed in config.seeds:
        for size in config.image_sizes:
            samples = draw(pipeline, size, per_class=config.per_class, seed=seed, options=options, caption="sample")
            cells.append(Cell(name, seed, size, reference.measure(samples)))
            images.setdefault(size, samples)
    real = {size: reference.measure_real(size, config.images_per_cell) for size in config.image_sizes}
    weights = f"{checkpoint} at step {load_description(find_checkpoint(checkpoint))['step']:,}"
    results = summarise(config, {name: name}, cells, real, weights=weights, command=command)
    write_tables(results, cells, {"checkpoint": str(checkpoint), **dataclasses.asdict(config)}, folder)
    method_sheet(results, name, images, folder / "sheet.png")
    print(f"\nWrote table.md, table.csv, results.json and sheet.png to {folder}")


def _check_alike(theirs: Config, study: Config, checkpoint: Path) -> None:
    """Raises ConfigError for a model whose images the study's judge cannot read."""
    theirs, study = (
        {"image_channels": c.in_channels, "num_classes": c.model.num_classes, "text": c.text.encoder}
        for c in (theirs, study)
    )
    for name in theirs:
        if theirs[name] != study[name]:
            raise ConfigError(
                f"checkpoint={checkpoint} has {name}={theirs[name]}, and the study {study[name]}: its judge reads "
                "images like its own alone"
            )


def main() -> None:
    checkpoint, workdir = Path(_CHECKPOINT.value), Path(_WORKDIR.value)
    config, folder = prepare_images(cli.load_config(StudyConfig.from_dict), workdir)
    command = shlex.join(["python", "-m", "experiments.measure", *sys.argv[1:]])
    measure_checkpoint(config, make_reference(config, folder), checkpoint, checkpoint.name, workdir, command)


if __name__ == "__main__":
    cli.define_config_flag("Study, for example configs/study_digits.py.")
    _CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of train.py, or a checkpoint folder.")
    _WORKDIR = flags.DEFINE_string("workdir", None, "Where the results go.")
    flags.declare_key_flag("config")
    cli.require("config", "checkpoint", "workdir")
    cli.run(main, __doc__)
