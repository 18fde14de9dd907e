"""One checkpoint at a list of sizes and guidance scales, in a table as the paper has it, with the paper's rows beside.

  python -m experiments.sweep --checkpoint=runs/xl2 --vae=VAE --inception=INCEPTION --workdir=runs/xl2-sweep \\
      --sizes=384x384,448x448,512x512,512x384,384x512 --cfg_scales=1.5 --reference=VIRTUAL_imagenet256_labeled.npz

With --steps=all, or --steps=10000,50000, the same for the checkpoints that a run has kept, and FID over training steps
in steps.md, steps.json and steps.png; each step has a folder in WORKDIR. configs/imagenet256_finetune.py keeps every
10,000th.

A model that draws from text needs --prompts, a file as sample.py takes it, and stands beside the paper's rows of text
to image: for COCO's val2014 give its JSON of captions, --num_samples=40504 --labels=balanced --cfg_scales=2.0, and
--clip=CHECKPOINT for the CLIP score.

Sizes are height x width. --reference may hold {size}, as in refs/{size}.npz, for a reference of each size. What is
finished is not done again: the same command goes on after a kill, and one with more sizes or scales adds those. WORKDIR
keeps the samples as npz, each with its recipe and its figures, the tables in sweep.md and sweep.json, and the features
of references (16 KB an image), which are measured once.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments.paper import paper_rows, text_rows
from experiments.sizes import Size, parse_size, size_name
from experiments.steps import Case, case_name, find_steps, steps_figure, steps_table
from experiments.sweep_case import measure_case
from ledit_jax import cli
from ledit_jax.convert.inception import load_inception
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.clip_score import ClipScorer
from ledit_jax.evaluation.features import FeatureExtractor
from ledit_jax.evaluation.statistics import SetStatistics, measure_set
from ledit_jax.evaluation.suite import Metrics, format_metric, metrics_table
from ledit_jax.evaluation.tables import markdown
from ledit_jax.files import PieceFolder, check_place, write_json, write_whole
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.prompts import find_prompts
from ledit_jax.sampling.recipe import Recipe, make_recipe
from ledit_jax.sampling.run import check_run, write_samples
from ledit_jax.weights import load_clip


def fid_table(name: str, results: Mapping[Case, Metrics], trained_side: int, num_samples: int) -> str:
    """Markdown: methods down, sizes across, FID in the cells; ours for each guidance scale, then the paper's.

    Each row says its number of samples; of the paper's, those of as many as ours come first.
    """
    sizes = list(dict.fromkeys(size for size, _ in results))
    lines = []
    for scale in dict.fromkeys(scale for _, scale in results):
        found = [results.get((size, scale)) for size in sizes]
        cells = ["-" if metrics is None else format_metric("fid", metrics.fid) for metrics in found]
        lines.append([f"**{name}, cfg {scale:g}**, {num_samples:,}", *cells])
    return markdown(["FID, samples", *map(size_name, sizes)], lines + paper_rows(trained_side, sizes, num_samples))


def make_text_page(name: str, results: Mapping[Case, Metrics], trained_side: int, num_samples: int) -> str:
    """Of a model that draws from text: all figures, ours and then the paper's of these sizes."""
    sizes = list(dict.fromkeys(size for size, _ in results))
    rows = {f"**{name}, {case_name(case)}**": metrics for case, metrics in results.items()}
    return (
        f"# {name} by size and guidance\n\n{metrics_table(rows | text_rows(trained_side, sizes))}\n\n"
        f"{num_samples:,} samples each; the paper has 40,504, for captions of COCO's val2014, with guidance 2 and 50 "
        "steps. FID falls as the number of samples grows. Sizes are height x width.\n"
    )


def make_page(name: str, results: Mapping[Case, Metrics], trained_side: int, num_samples: int) -> str:
    """Both tables, and what to know before comparing."""
    rows = {case_name(case): metrics for case, metrics in results.items()}
    fids = fid_table(name, results, trained_side, num_samples)
    return (
        f"# {name} by size and guidance\n\n{fids}\n\n{metrics_table(rows)}\n\n"
        f"{num_samples:,} samples each; the paper's figures have guidance 1.5. FID falls as the number of samples "
        "grows: compare rows of the same number. Sizes are height x width.\n"
    )


def recipe_of(
    values: flags.FlagValues, checkpoint: str, pipeline: LEDiTPipeline, case: Case, prompts: Sequence[str] | None
) -> Recipe:
    """How the samples of a case are made."""
    (height, width), cfg_scale = case
    return make_recipe(
        pipeline,
        checkpoint=checkpoint,
        weights=values.weights,
        vae=values.vae,
        prompts=prompts,
        labels=values.labels,
        num_samples=values.num_samples,
        height=height,
        width=width,
        seed=values.seed,
        options=pipeline.options(sampler=values.sampler, num_steps=values.num_steps, cfg_scale=cfg_scale),
    )


def shared_settings(recipe: Recipe) -> dict[str, Any]:
    """What all samples of a workdir have in common; a case's name says the rest."""
    return {name: value for name, value in recipe.to_dict().items() if name not in ("height", "width", "cfg_scale")}


def sweep(
    values: flags.FlagValues,
    checkpoint: str,
    workdir: Path,
    extractor: Callable[[], FeatureExtractor],
    reference: Callable[[Size], SetStatistics],
    scorer: Callable[[], ClipScorer] | None = None,
) -> dict[Case, Metrics]:
    """The figures of one checkpoint, its tables written to `workdir`. scorer: adds the CLIP score."""
    cases = [(parse_size(size), _number(scale)) for size in values.sizes for scale in values.cfg_scales]
    devices = jax.local_devices()
    weights = dict(weights=values.weights, vae=values.vae, text_encoder=values.text_encoder)
    pipeline = LEDiTPipeline.from_checkpoint(checkpoint, devices=devices, **weights)
    prompts = find_prompts(None, values.prompts)
    if scorer and not prompts:
        raise ConfigError("--clip scores images against their prompts: give --prompts")

    def draw(case: Case, out: Path) -> Recipe:
        recipe = recipe_of(values, checkpoint, pipeline, case, prompts)
        if not out.is_file():
            write_samples(out, pipeline, recipe, batch_size=values.batch_size)
        return recipe

    recipes = [recipe_of(values, checkpoint, pipeline, case, prompts) for case in cases]
    for recipe in recipes:
        check_run(workdir / "x.npz", pipeline, recipe, values.batch_size)
        pipeline.check(dataclasses.replace(recipe, num_samples=1).choose(), recipe.height, recipe.width)
    check_place(workdir)
    settings = shared_settings(recipes[0])
    pieces = PieceFolder.open(workdir, "settings.json", settings, overwrite=values.overwrite)
    for size, _ in cases:  # before anything is drawn
        reference(size)
    results = {}
    for case in cases:
        print(case_name(case), flush=True)
        results[case] = measure_case(case, pieces, draw, extractor, reference(case[0]), scorer)
    make = make_text_page if pipeline.prompts.are_text else make_page
    page = make(Path(checkpoint).name, results, pipeline.config.data.image_height, values.num_samples)
    write_whole(pieces.path("sweep.md"), page)
    write_json(pieces.path("sweep.json"), _named(results))
    print(f"{page}\nwrote sweep.md and sweep.json to {workdir}")
    return results


def sweep_steps(folders: Mapping[int, Path], workdir: Path, one: Callable[[str, Path], dict[Case, Metrics]]) -> None:
    """FID over the training steps of a run; one(checkpoint, workdir) sweeps one of its checkpoints."""
    results = {}
    for step, folder in folders.items():
        results[step] = one(str(folder), workdir / f"step-{step}")
        # As soon as each is there: a step takes hours.
        write_whole(workdir / "steps.md", f"# FID over training steps\n\n{steps_table(results)}\n")
        write_json(workdir / "steps.json", {str(step): _named(found) for step, found in results.items()})
        steps_figure(results, workdir / "steps.png")
    print(f"{steps_table(results)}\nwrote steps.md, steps.json and steps.png to {workdir}")


def main() -> None:
    values = flags.FLAGS
    extractor = functools.cache(lambda: FeatureExtractor(load_inception(values.inception), values.batch_size))

    scorer = functools.cache(lambda: ClipScorer(*load_clip(values.clip), values.batch_size))

    @functools.cache
    def reference(size: Size) -> SetStatistics:
        name = values.reference.replace("{size}", size_name(size))
        folder = Path(values.workdir) / "references" / re.sub(r"[^\w.-]+", "-", name)[-200:]
        return measure_set(name, extractor, is_reference=True, folder=folder, overwrite=True)

    def one(checkpoint: str, workdir: Path) -> dict[Case, Metrics]:
        return sweep(values, checkpoint, workdir, extractor, reference, scorer if values.clip else None)

    if values.steps:
        sweep_steps(find_steps(values.checkpoint, values.steps), Path(values.workdir), one)
    else:
        one(values.checkpoint, Path(values.workdir))


def _named(results: Mapping[Case, Metrics]) -> dict[str, dict[str, Any]]:
    return {case_name(case): dataclasses.asdict(metrics) for case, metrics in results.items()}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--cfg_scales: {text} is no number, as in 1.5,4") from error


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, "Workdir of train.py, or a checkpoint folder.")
    flags.DEFINE_enum("weights", "ema", ["ema", "params"], "Averaged weights (results use these) or raw ones.")
    flags.DEFINE_string("vae", None, "VAE checkpoint that decodes latents. Default: the one the config names.")
    flags.DEFINE_string(
        "text_encoder", None, "Text encoder checkpoint, for prompts. Default: the one the config names."
    )
    flags.DEFINE_string("prompts", None, "File of prompts, one a line, or COCO's JSON of captions.")
    flags.DEFINE_string("clip", None, "Checkpoint of CLIP's two towers: adds the CLIP score, of --prompts.")
    flags.DEFINE_string("inception", None, "Weights of the Inception network, as evaluate.py takes them.")
    flags.DEFINE_string("reference", None, "As evaluate.py takes it; {size} stands for each size.")
    flags.DEFINE_string("workdir", None, "Where samples, figures and tables go; gone on with if it has any.")
    flags.DEFINE_list("steps", None, "Training steps of a run's checkpoints, or all that it has kept.")
    flags.DEFINE_list("sizes", None, "Height x width in pixels, as in 384x384,512x384.")
    flags.DEFINE_list("cfg_scales", "1.5", "Guidance scales; 1 is none.")
    flags.DEFINE_integer("num_samples", 50_000, "Images for each case.", lower_bound=2)
    flags.DEFINE_enum("labels", "random", ["balanced", "random"], "As in sample.py; the published numbers draw them.")
    flags.DEFINE_string("sampler", None, "As in sample.py.")
    flags.DEFINE_integer("num_steps", None, "As in sample.py.")
    flags.DEFINE_integer("seed", 0, "Image i is a function of the seed and i.")
    flags.DEFINE_integer("batch_size", 64, "Images at a time on each device.", lower_bound=1)
    flags.DEFINE_bool("overwrite", False, "Begin anew in a workdir that has other settings.")
    cli.require("checkpoint", "inception", "reference", "workdir", "sizes", "cfg_scales")
    cli.run(main, __doc__)
