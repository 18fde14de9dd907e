"""One checkpoint at a list of sizes and guidance scales, in a table as the paper has it, with the paper's rows beside.

  python -m experiments.sweep --checkpoint=runs/xl2 --vae=VAE --inception=INCEPTION --workdir=runs/xl2-sweep \\
      --sizes=384x384,448x448,512x512,512x384,384x512 --cfg_scales=1.5 --reference=VIRTUAL_imagenet256_labeled.npz

Sizes are height x width. --reference may hold {size}, as in refs/{size}.npz, for a reference of each size. What is
finished is not done again: the same command goes on after a kill. The samples are kept in WORKDIR as npz, each with
its recipe and its figures; WORKDIR/sweep.md and sweep.json hold the tables.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments.paper import FID, Size
from ledit_jax import cli
from ledit_jax.convert.inception import load_inception
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.features import FeatureExtractor
from ledit_jax.evaluation.results import report
from ledit_jax.evaluation.statistics import SetStatistics, measure_set
from ledit_jax.evaluation.suite import COLUMNS, Metrics, evaluate, format_metric, metrics_table
from ledit_jax.evaluation.tables import markdown
from ledit_jax.files import write_json, write_whole
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.run import Recipe, write_samples
from ledit_jax.weights import find_checkpoint, load_description

Case = tuple[Size, float]
"""A size and a guidance scale."""


def parse_sizes(texts: Sequence[str]) -> list[Size]:
    """["512x384"] -> [(512, 384)]. Raises ConfigError for another form."""
    sizes = []
    for text in texts:
        height, _, width = text.partition("x")
        if not (height.isdigit() and width.isdigit()):
            raise ConfigError(f"--sizes: {text} is no size: write height x width, as in 512x384")
        sizes.append((int(height), int(width)))
    return sizes


def case_name(case: Case) -> str:
    """The stem of a case's files."""
    (height, width), cfg_scale = case
    return f"{height}x{width}-cfg{cfg_scale:g}"


def run_case(
    case: Case,
    workdir: Path,
    draw: Callable[[Case, Path], dict[str, Any]],
    extractor: Callable[[], FeatureExtractor],
    reference: Callable[[Size], SetStatistics],
) -> Metrics:
    """The figures of one case, drawn and measured, or read if an earlier run got this far with the same recipe.

    draw(case, path) writes samples to path, or only says how they would be made if they are there, and returns that.
    """
    out, figures = workdir / f"{case_name(case)}.npz", workdir / f"{case_name(case)}.json"
    recipe, judge = draw(case, out), reference(case[0])
    if figures.is_file():
        earlier = json.loads(figures.read_text())
        if earlier["recipe"] == recipe and earlier["reference"]["name"] == judge.name:
            return Metrics(**{name: earlier[name] for name in COLUMNS})
    samples = measure_set(str(out), extractor, folder=workdir / f"{out.name}.features")
    metrics = evaluate(samples, judge, extractor().class_weights, progress=f"{case_name(case)} precision and recall")
    network = {"digest": extractor().digest}
    write_json(figures, report(metrics, samples, judge, network, recipe))
    return metrics


def fid_table(name: str, results: Mapping[Case, Metrics], trained_side: int, num_samples: int) -> str:
    """Markdown: methods down, sizes across, FID in the cells; ours for each guidance scale, then the paper's.

    Each row says its number of samples; of the paper's, those of as many as ours come first.
    """
    sizes = list(dict.fromkeys(size for size, _ in results))
    scales = list(dict.fromkeys(scale for _, scale in results))
    lines = []
    for scale in scales:
        found = [results.get((size, scale)) for size in sizes]
        cells = ["-" if metrics is None else format_metric("fid", metrics.fid) for metrics in found]
        lines.append([f"**{name}, cfg {scale:g}**, {num_samples:,}", *cells])
    papers = FID.get(trained_side, {})
    for count in sorted(papers, key=lambda count: (count != num_samples, -count)):
        for method, figures in papers[count].items():
            if any(size in figures for size in sizes):
                cells = [format_metric("fid", figures.get(size)) for size in sizes]
                lines.append([f"{method} (paper), {count:,}", *cells])
    return markdown(["FID, samples"] + [f"{height}x{width}" for height, width in sizes], lines)


def make_report(name: str, results: Mapping[Case, Metrics], trained_side: int, num_samples: int) -> str:
    """Both tables, and what to know before comparing."""
    rows = {case_name(case): metrics for case, metrics in results.items()}
    fids = fid_table(name, results, trained_side, num_samples)
    return (
        f"# {name} by size and guidance\n\n{fids}\n\n{metrics_table(rows)}\n\n"
        f"{num_samples:,} samples each; the paper's figures have guidance 1.5. FID falls as the number of samples "
        "grows: compare rows of the same number. Sizes are height x width.\n"
    )


class Sampler:
    """Draws the cases of one checkpoint; the model is loaded when it is first needed."""

    def __init__(self, values: flags.FlagValues):
        self._values = values
        self.folder = find_checkpoint(values.checkpoint)

    @functools.cached_property
    def pipeline(self) -> LEDiTPipeline:
        values = self._values
        return LEDiTPipeline.from_checkpoint(self.folder, values.weights, values.vae, devices=jax.local_devices())

    def __call__(self, case: Case, out: Path) -> dict[str, Any]:
        values, pipeline = self._values, self.pipeline
        (height, width), cfg_scale = case
        recipe = Recipe(
            checkpoint=str(self.folder),
            step=load_description(self.folder)["step"],
            weights=values.weights,
            vae=values.vae or pipeline.config.autoencoder.checkpoint or None,
            labels=values.labels,
            classes=tuple(range(pipeline.config.model.num_classes)),
            num_samples=values.num_samples,
            height=height,
            width=width,
            seed=values.seed,
            options=pipeline.options(sampler=values.sampler, num_steps=values.num_steps, cfg_scale=cfg_scale),
        )
        beside = out.with_suffix(".recipe.json")
        made = json.loads(beside.read_text()) if out.is_file() and beside.is_file() else {}
        if {key: made.get(key) for key in recipe.to_dict()} != recipe.to_dict():
            write_samples(out, pipeline, recipe, batch_size=values.batch_size, overwrite=values.overwrite)
        return recipe.to_dict()


def main() -> None:
    values = flags.FLAGS
    workdir = Path(values.workdir)
    cases = [(size, _number(scale)) for size in parse_sizes(values.sizes) for scale in values.cfg_scales]
    sampler = Sampler(values)
    extractor = functools.cache(lambda: FeatureExtractor(load_inception(values.inception), values.batch_size))

    @functools.cache
    def reference(size: Size) -> SetStatistics:
        name = values.reference.replace("{size}", f"{size[0]}x{size[1]}")
        return measure_set(name, extractor, is_reference=True)

    for size, _ in cases:  # before anything is drawn
        sampler.pipeline.check([0], *size)
        reference(size)
    results = {}
    for case in cases:
        print(case_name(case), flush=True)
        results[case] = run_case(case, workdir, sampler, extractor, reference)
    side = sampler.pipeline.config.data.image_height
    text = make_report(f"{Path(values.checkpoint).name}", results, side, values.num_samples)
    write_whole(workdir / "sweep.md", text)
    write_json(workdir / "sweep.json", {case_name(c): {n: getattr(m, n) for n in COLUMNS} for c, m in results.items()})
    print(f"{text}\nwrote sweep.md and sweep.json to {workdir}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--cfg_scales: {text} is no number, as in 1.5,4") from error


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, "Workdir of train.py, or a checkpoint folder.")
    flags.DEFINE_enum("weights", "ema", ["ema", "params"], "Averaged weights (results use these) or raw ones.")
    flags.DEFINE_string("vae", None, "VAE checkpoint that decodes latents. Default: the one the config names.")
    flags.DEFINE_string("inception", None, "Weights of the Inception network, as evaluate.py takes them.")
    flags.DEFINE_string("reference", None, "As evaluate.py takes it; {size} stands for each size.")
    flags.DEFINE_string("workdir", None, "Where samples, figures and tables go; gone on with if it has any.")
    flags.DEFINE_list("sizes", None, "Height x width in pixels, as in 384x384,512x384.")
    flags.DEFINE_list("cfg_scales", "1.5", "Guidance scales; 1 is none.")
    flags.DEFINE_integer("num_samples", 50_000, "Images for each case.", lower_bound=2)
    flags.DEFINE_enum("labels", "random", ["balanced", "random"], "As in sample.py; the published numbers draw them.")
    flags.DEFINE_string("sampler", None, "As in sample.py.")
    flags.DEFINE_integer("num_steps", None, "As in sample.py.")
    flags.DEFINE_integer("seed", 0, "Image i is a function of the seed and i.")
    flags.DEFINE_integer("batch_size", 64, "Images at a time on each device.", lower_bound=1)
    flags.DEFINE_bool("overwrite", False, "Draw again what lies in the workdir with another recipe.")
    flags.mark_flags_as_required(["checkpoint", "inception", "reference", "workdir", "sizes"])
    cli.run(main, __doc__)
