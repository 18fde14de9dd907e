"""One case of a sweep, a size and a guidance scale: its figures, measured once for each network and reference."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from experiments.steps import Case, case_name
from ledit_jax.evaluation.clip_score import ClipScorer
from ledit_jax.evaluation.features import FeatureExtractor
from ledit_jax.evaluation.images import open_images
from ledit_jax.evaluation.prompts import read_prompts
from ledit_jax.evaluation.results import report
from ledit_jax.evaluation.statistics import SetStatistics, measure_set
from ledit_jax.evaluation.suite import COLUMNS, Metrics, evaluate
from ledit_jax.files import PieceFolder, write_json
from ledit_jax.files.readers import read_json
from ledit_jax.sampling.recipe import Recipe


def measure_case(
    case: Case,
    pieces: PieceFolder,
    draw: Callable[[Case, Path], Recipe],
    extractor: Callable[[], FeatureExtractor],
    reference: SetStatistics,
    scorer: Callable[[], ClipScorer] | None = None,
) -> Metrics:
    """The figures of one case, drawn and measured; or read, if an earlier run measured it against the same.

    draw(case, path) writes samples to path, if they are not there, and returns their recipe. scorer: adds the CLIP
    score of samples that were drawn from prompts.
    """
    samples, figures = f"{case_name(case)}.npz", pieces.path(f"{case_name(case)}.json")
    network, clip = {"digest": extractor().digest}, scorer and {"digest": scorer().digest}
    if figures.is_file():
        found = read_json(figures, fields={"reference": dict, "inception": dict})
        known = found["reference"].get("fingerprint"), found["inception"], found.get("clip")
        if known == (reference.fingerprint, network, clip) and found.keys() >= COLUMNS.keys():
            return Metrics(**{name: found.get(name) for name in (*COLUMNS, "clip_score")})
    recipe = draw(case, pieces.path(samples))
    features = pieces.path(f"{samples}.features") / extractor().digest  # other weights have a folder of their own
    ours = measure_set(str(pieces.path(samples)), extractor, folder=features)
    caption = f"{case_name(case)} precision and recall"
    metrics = evaluate(ours, reference, extractor().class_weights, progress=caption)
    if scorer:
        metrics = replace(metrics, clip_score=_clip_score(pieces.path(samples), scorer(), case_name(case)))
    write_json(figures, report(metrics, ours, reference, network, recipe.to_dict(), clip))
    return metrics


def _clip_score(samples: Path, scorer: ClipScorer, name: str) -> float:
    folder = samples.with_name(f"{samples.name}.features") / scorer.digest
    return float(scorer(open_images(str(samples)), read_prompts(samples), folder, progress=f"{name} CLIP").mean())
