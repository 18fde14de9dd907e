"""The five numbers of ADM's evaluation, of one set of images against another, and their table."""

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ledit_jax.evaluation.frechet import frechet_distance
from ledit_jax.evaluation.inception_score import SPLIT, inception_score
from ledit_jax.evaluation.neighbours import NUM_NEIGHBOURS, precision_recall
from ledit_jax.evaluation.statistics import SetStatistics
from ledit_jax.evaluation.tables import markdown
from ledit_jax.models.inception import NUM_FEATURES

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metrics:
    """None is what could not be computed from what was given."""

    fid: float | None = None
    sfid: float | None = None
    inception_score: float | None = None
    precision: float | None = None
    recall: float | None = None
    clip_score: float | None = None
    """Of text-to-image samples, see clip_score.py; the other five are ADM's."""


COLUMNS = {"fid": "FID", "sfid": "sFID", "inception_score": "IS", "precision": "precision", "recall": "recall"}
"""ADM's metrics in the paper's order, and what tables call them."""
_CLIP = {"clip_score": "CLIP"}


def evaluate(
    samples: SetStatistics,
    reference: SetStatistics,
    class_weights: Float[np.ndarray, "D K"] | None,
    progress: str | None = None,
) -> Metrics:
    """FID, sFID, Inception Score, precision and recall; warns where sets are small, or of different sizes.

    class_weights: `FeatureExtractor.class_weights`, for the Inception Score; None leaves it out, as do samples without
    features. progress: the caption of the progress bar of precision and recall.
    """
    for side, statistics in (("samples", samples), ("reference", reference)):
        _warn_if_small(side, statistics)
    _warn_of_sizes(samples, reference)
    score = precision = recall = None
    if samples.features is None:
        _log.warning("warning: %s holds statistics alone: no Inception Score, precision and recall", samples.name)
    else:
        score = None if class_weights is None else inception_score(samples.features, class_weights)
        if reference.features is None:
            _log.warning("warning: %s holds statistics alone: no precision and recall", reference.name)
        elif min(len(samples.features), len(reference.features)) > NUM_NEIGHBOURS:
            precision, recall = precision_recall(reference.features, samples.features, progress=progress)
    return Metrics(
        fid=frechet_distance(*samples.pool, *reference.pool) if samples.pool and reference.pool else None,
        sfid=frechet_distance(*samples.spatial, *reference.spatial) if samples.spatial and reference.spatial else None,
        inception_score=score,
        precision=precision,
        recall=recall,
    )


def _warn_if_small(side: str, statistics: SetStatistics) -> None:
    count = statistics.num_samples
    if count is None:
        return
    if count < 2:
        _log.warning("warning: the %s are %d image: no FID and sFID, which need 2 or more", side, count)
    elif count <= NUM_FEATURES:
        _log.warning(
            "warning: the %s are %d images, no more than the %d features: FID and sFID come out far too high, and "
            "compare only with those of equally many; use 10000 or more",
            *(side, count, NUM_FEATURES),
        )
    if side == "samples" and count < SPLIT:
        _log.warning(
            "warning: the samples are %d images, less than a split (%d) of the Inception Score: it comes out too low",
            *(count, SPLIT),
        )
    if count <= NUM_NEIGHBOURS:
        _log.warning(
            "warning: the %s are %d images: no precision and recall, which need %d or more",
            *(side, count, NUM_NEIGHBOURS + 1),
        )


def _warn_of_sizes(samples: SetStatistics, reference: SetStatistics) -> None:
    if samples.size and reference.size and samples.size != reference.size:
        sizes = [f"{height}x{width}" for height, width in (samples.size, reference.size)]
        _log.warning(
            "warning: samples are %s and the reference %s (height x width): both are resized to 299x299, as in the "
            "paper, and compare only with figures of the same reference",
            *sizes,
        )


def metrics_table(rows: dict[str, Metrics]) -> str:
    """Markdown: one row for each name, "-" for what could not be computed; higher or lower is better as marked.

    The CLIP score has a column where some row has one.
    """
    has_clip = any(metrics.clip_score is not None for metrics in rows.values())
    columns = COLUMNS | (_CLIP if has_clip else {})
    header = ["samples"] + [title + (" ↓" if name in ("fid", "sfid") else " ↑") for name, title in columns.items()]
    lines = [[row, *(format_metric(name, getattr(metrics, name)) for name in columns)] for row, metrics in rows.items()]
    return markdown(header, lines)


def format_metric(name: str, value: float | None) -> str:
    """Two digits for distances and the score, four for shares, as ADM prints them; "-" for None."""
    return "-" if value is None else f"{value:.4f}" if name in ("precision", "recall") else f"{value:.2f}"
