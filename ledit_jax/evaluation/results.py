"""Figures as JSON: what was measured, against what, by which weights, and how the samples were made."""

import dataclasses
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.statistics import SetStatistics
from ledit_jax.evaluation.suite import Metrics
from ledit_jax.sampling.writers import recipe_path


def read_recipe(samples: str | Path) -> dict[str, Any] | None:
    """How samples were made, as sample.py wrote it beside them; None if it did not. Raises ConfigError if damaged."""
    path = recipe_path(samples)
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: remove it, or write the samples again") from error


def report(
    metrics: Metrics,
    samples: SetStatistics,
    reference: SetStatistics,
    network: dict[str, str] | None,
    recipe: dict[str, Any] | None,
) -> dict[str, Any]:
    """All that is known of a measurement, ready for JSON."""
    return {
        **dataclasses.asdict(metrics),
        "samples": _describe(samples),
        "reference": _describe(reference),
        "inception": network,
        "recipe": recipe,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy", "scipy")},
    }


def check_writable(path: str | None) -> None:
    """Raises ConfigError, before anything is computed, where a file cannot be written."""
    if path is None:
        return
    folder = Path(path).absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK) or Path(path).is_dir():
            raise PermissionError(13, "not a file that can be written")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): choose another place") from error


def _describe(statistics: SetStatistics) -> dict[str, Any]:
    size = statistics.size
    return {
        "name": statistics.name,
        "num_samples": statistics.num_samples,
        "height": size and size[0],
        "width": size and size[1],
        "num_features": None if statistics.features is None else len(statistics.features),
    }
