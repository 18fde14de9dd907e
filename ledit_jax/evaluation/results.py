"""Figures as JSON: what was measured, against what, by which weights, and how the samples were made."""

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

from ledit_jax.evaluation.statistics import SetStatistics
from ledit_jax.evaluation.suite import Metrics
from ledit_jax.files import recipe_path
from ledit_jax.files.readers import read_json


def read_recipe(samples: str | Path) -> dict[str, Any] | None:
    """How samples were made, as sample.py wrote it beside them; None if it did not. Raises DataError if damaged."""
    path = recipe_path(samples)
    return read_json(path) if path.is_file() else None


def report(
    metrics: Metrics,
    samples: SetStatistics,
    reference: SetStatistics | None,
    network: dict[str, str] | None,
    recipe: dict[str, Any] | None,
    clip: dict[str, str] | None = None,
) -> dict[str, Any]:
    """All that is known of a measurement, ready for JSON. network, clip: path and digest of the weights."""
    return {
        **dataclasses.asdict(metrics),
        "samples": _describe(samples),
        "reference": reference and _describe(reference),
        "inception": network,
        "clip": clip,
        "recipe": recipe,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy", "scipy")},
    }


def _describe(statistics: SetStatistics) -> dict[str, Any]:
    size = statistics.size
    return {
        "name": statistics.name,
        "fingerprint": statistics.fingerprint,
        "num_samples": statistics.num_samples,
        "height": size and size[0],
        "width": size and size[1],
        "num_features": None if statistics.features is None else len(statistics.features),
    }
