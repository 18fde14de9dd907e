"""FID, sFID, Inception Score, precision and recall of samples against a reference, as ADM's evaluation defines them.

  python evaluate.py --samples=x.npz --reference=VIRTUAL_imagenet256_labeled.npz --inception=INCEPTION --json=x.json
  python evaluate.py --reference=imagenet/val --height=512 --width=384 --inception=INCEPTION --save_reference=ref.npz
  python evaluate.py --samples=folder --reference=ref.npz --inception=INCEPTION --features=cache
  python evaluate.py --samples=x.npz --clip=checkpoints/clip

INCEPTION is pt_inception-2015-12-05-6726825d.pth (reading it needs torch), classify_image_graph_def.pb, or an .npz
that convert_torch_weights.py made of one of them. Samples and references are an .npz of ADM's, a folder of images, a
file of --save_reference, or a data source: digits:test, glyphs, shapes, tfds:NAME:SPLIT. --clip adds the CLIP score of
samples and their prompts. With --features=FOLDER the same command goes on after a kill. More in docs/evaluation.md.
"""

import ledit_jax.early  # noqa: F401, before what takes seconds

import dataclasses
import functools
from pathlib import Path

from absl import flags

from ledit_jax import cli
from ledit_jax.convert.inception import load_inception
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.clip_score import ClipScorer
from ledit_jax.evaluation.features import FeatureExtractor
from ledit_jax.evaluation.images import open_images
from ledit_jax.evaluation.prompts import read_prompts
from ledit_jax.evaluation.results import read_recipe, report
from ledit_jax.evaluation.statistics import check_statistics_file, measure_set, save_statistics, unmeasured_set
from ledit_jax.evaluation.suite import Metrics, evaluate, metrics_table
from ledit_jax.files import as_place, check_writable, write_json
from ledit_jax.hub import resolve
from ledit_jax.weights import load_clip

SAMPLES = flags.DEFINE_string("samples", None, "What is judged. May be left out with --save_reference.")
REFERENCE = flags.DEFINE_string("reference", None, "What it is judged by. With --clip it may be left out.")
INCEPTION = flags.DEFINE_string("inception", None, "Weights; not needed where both sides are stored statistics.")
SAVE_REFERENCE = flags.DEFINE_string("save_reference", None, "x.npz: keep the reference's statistics and features.")
JSON = flags.DEFINE_string("json", None, "x.json: the figures, with the samples' recipe.")
HEIGHT = flags.DEFINE_integer("height", None, "Crop the reference to this size (pixels), as training crops.")
WIDTH = flags.DEFINE_integer("width", None, "Like --height.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time on each device.", lower_bound=1)
CLIP = flags.DEFINE_string("clip", None, "Checkpoint of CLIP's two towers: adds the CLIP score.")
PROMPTS = flags.DEFINE_string("prompts", None, "One a line, in the order of the samples. Default: beside the samples.")
FEATURES = flags.DEFINE_string("features", None, "Folder to keep features in, for going on and for other references.")


@functools.cache
def extractor() -> FeatureExtractor:
    if not INCEPTION.value:
        raise ConfigError("--inception is not given, and there are images to judge: see --help for the files it takes")
    return FeatureExtractor(load_inception(INCEPTION.value), BATCH_SIZE.value)


def features(side: str) -> Path | None:
    return Path(FEATURES.value) / side if FEATURES.value else None


def clip_score() -> tuple[float, dict[str, str]]:
    prompts, images = read_prompts(SAMPLES.value, PROMPTS.value), open_images(SAMPLES.value)
    scorer = ClipScorer(*load_clip(resolve(CLIP.value)), BATCH_SIZE.value)
    scores = scorer(images, prompts, features("clip"), progress=f"CLIP, {Path(SAMPLES.value).name}")
    return float(scores.mean()), {"path": CLIP.value, "digest": scorer.digest}


def main() -> None:
    if not SAMPLES.value and not SAVE_REFERENCE.value:
        raise ConfigError("--samples is not given: name what to judge, or give --save_reference to make a reference")
    if not REFERENCE.value and (SAVE_REFERENCE.value or not CLIP.value):
        raise ConfigError("--reference is not given: it may be left out for the CLIP score alone (--clip)")
    if JSON.value:
        check_writable(as_place(JSON.value))
    if SAVE_REFERENCE.value:
        check_statistics_file(as_place(SAVE_REFERENCE.value))
    how = dict(is_reference=True, folder=features("reference"), height=HEIGHT.value, width=WIDTH.value)
    reference = measure_set(REFERENCE.value, extractor, **how) if REFERENCE.value else None
    if SAVE_REFERENCE.value:
        save_statistics(reference, SAVE_REFERENCE.value)
        print(f"wrote the statistics of {reference.num_samples} images to {SAVE_REFERENCE.value}")
    if not SAMPLES.value:
        return
    score, clip = clip_score() if CLIP.value else (None, None)
    if reference:
        samples = measure_set(SAMPLES.value, extractor, folder=features("samples"))
        weights = None if samples.features is None or not INCEPTION.value else extractor().class_weights
        metrics = evaluate(samples, reference, weights, progress="precision and recall")
    else:
        samples, metrics = unmeasured_set(SAMPLES.value), Metrics()
    metrics = dataclasses.replace(metrics, clip_score=score)
    print(metrics_table({SAMPLES.value: metrics}))
    if JSON.value:
        network = {"path": INCEPTION.value, "digest": extractor().digest} if reference and INCEPTION.value else None
        write_json(as_place(JSON.value), report(metrics, samples, reference, network, read_recipe(SAMPLES.value), clip))


if __name__ == "__main__":
    cli.run(main, __doc__)
