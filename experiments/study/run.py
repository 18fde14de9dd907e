"""A study from its settings to its results: the arms trained, the cells measured, the pages written."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.plots import loss_curve
from experiments.sizes import size_name
from experiments.study.arms import check_arms, train_arms
from experiments.study.calls import calls_chart, calls_sheet, is_by_calls
from experiments.study.cells import load_samples, measure_seed, open_samples
from experiments.study.charts import metric_chart
from experiments.study.config import Study, StudyConfig
from experiments.study.methods import find_method
from experiments.study.reference import make_reference, prepare_images
from experiments.study.results import Cell, Results, summarise
from experiments.study.sheets import method_sheet, overview_sheet, size_sheet
from experiments.study.tables import write_tables
from ledit_jax.files import check_place


def run_study(config: StudyConfig, workdir: Path, command: str = "") -> list[Cell]:
    """Trains, samples and measures whatever is not finished yet, and writes the results. Returns every cell.

    An arm whose training fails, and a cell whose sampling or measuring does, is reported with its error and does
    not stop the others. Raises Interrupted after a signal and, before any training, OutputError for a workdir that was
    begun with other settings. command: what the results are said to come from.
    """
    check_place(workdir)
    config, folder = prepare_images(config, workdir)
    study = Study(config, workdir)
    check_arms(study)
    for seed in config.seeds:
        for name in config.methods:
            open_samples(study, name, seed)
    reference = make_reference(config, folder)
    cells, failed = [], {}
    for seed in config.seeds:
        failed[seed] = train_arms(study, seed)
        cells += measure_seed(study, seed, reference, failed[seed])
    real = {size: reference.measure_real(size, config.images_per_cell) for size in config.image_sizes}
    whose = "a common DiT" if len(config.bases) == 1 else "a DiT for each process"
    start = f"after {config.base_steps:,} of {whose}" if config.base_steps else "from scratch"
    weights = f"{config.steps:,} training steps {start}"
    labels = {name: _label(config, name) for name in config.methods}
    results = summarise(config, labels, cells, real, weights=weights, command=command)
    write_tables(results, cells, dataclasses.asdict(config), workdir)
    draw_study(study, results, cells, failed[config.seeds[0]])
    print(f"\nWrote table.md, table.csv, results.json, the charts and the sheets of images to {workdir}")
    return cells


def _label(config: StudyConfig, name: str) -> str:
    """A method's in the tables: of captions, what is a DiT otherwise is an MMDiT."""
    label = find_method(name).label
    return re.sub(r"\b(LE)?DiT", r"\1MMDiT", label) if config.is_of_captions else label


def draw_study(study: Study, results: Results, cells: Sequence[Cell], failed: Mapping[str, str]) -> None:
    """Writes METRIC.png, loss.png, overview.png, images-HxW.png and images-METHOD.png, of the first seed.

    Methods drawn with several numbers of calls have calls.png and calls-HxW.png instead. failed: arms without weights.
    """
    seed, by_calls = study.config.seeds[0], [name for name in results.methods if is_by_calls(name)]
    curves = {arm: study.weights(arm, seed) / "metrics.jsonl" for arm in study.config.arms if arm not in failed}
    curves = {arm: file for arm, file in curves.items() if file.exists()}  # weights may have come without their history
    if curves:
        loss_curve(curves, study.workdir / "loss.png")
    drawn = [cell for cell in cells if cell.seed == seed and cell.figures is not None]
    images = {(cell.method, cell.size): load_samples(study, cell.method, seed, cell.size) for cell in drawn}
    if by_calls:
        calls_chart(results, study.workdir / "calls.png")
        for size in results.sizes:
            calls_sheet(results, size, images, study.workdir / f"calls-{size_name(size)}.png")
    results = results.select([name for name in results.methods if name not in by_calls])
    if not results.methods:
        return
    for metric in results.metrics:
        metric_chart(results, metric, study.workdir / f"{metric}.png")
    overview_sheet(results, images, study.workdir / "overview.png")
    for size in results.sizes:
        ours = {name: images[name, size] for name in results.methods if (name, size) in images}
        size_sheet(results, size, ours, study.workdir / f"images-{size_name(size)}.png")
    for name in results.methods:
        ours = {size: images[name, size] for size in results.sizes if (name, size) in images}
        method_sheet(results, name, ours, study.workdir / f"images-{name}.png")
