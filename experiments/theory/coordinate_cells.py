"""The coordinate task's outcomes on disk: a file for each network and seed, made once."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.theory.coordinate_arms import ARMS
from experiments.theory.coordinate_task import Outcome, Task, train_and_read
from ledit_jax.errors import ConfigError
from ledit_jax.files import PieceFolder
from ledit_jax.files.readers import read_json

Outcomes = dict[str, list[Outcome]]
"""Arm -> an outcome for each seed."""


def open_cells(folder: Path, task: Task) -> PieceFolder:
    """The folder of a task's outcomes. Raises OutputError as `PieceFolder.open`."""
    return PieceFolder.open(folder, "task.json", vars(task), pieces="*.json")


def run_cells(folder: PieceFolder, arms: Sequence[str], seeds: Sequence[int], task: Task) -> None:
    """Trains what is missing, all arms with one seed before the next seed begins."""
    for seed in seeds:
        for name in arms:
            piece = _piece(name, seed)
            if folder.missing([piece]):
                caption = f"{name}, {task.side}x{task.side}, width {task.width}, seed {seed}"
                outcome = train_and_read(ARMS[name], task, seed, caption)
                with folder.write(piece) as file:
                    file.write(json.dumps(outcome.to_dict()).encode())


def read_cells(folder: PieceFolder, arms: Sequence[str], seeds: Sequence[int]) -> Outcomes:
    """What is there of these arms and seeds; arms without any are left out."""
    found = {
        name: [
            Outcome(**folder.read(_piece(name, seed), read_json))
            for seed in seeds
            if not folder.missing([_piece(name, seed)])
        ]
        for name in arms
    }
    return {name: outcomes for name, outcomes in found.items() if outcomes}


def _piece(name: str, seed: int) -> str:
    return f"{name}-seed-{seed}.json"


def rounded(values: Any) -> Any:
    """Numbers with three digits each, wherever they lie in lists and mappings, as results are committed."""
    if isinstance(values, dict):
        return {key: rounded(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [rounded(value) for value in values]
    return float(f"{values:.3g}") if isinstance(values, float) else values


def parse_seeds(items: Sequence[str]) -> list[int]:
    """The value of --seeds. Raises ConfigError for what is no whole number."""
    if not items or not all(item.strip().isdecimal() for item in items):
        raise ConfigError(f"--seeds={','.join(items)}: write whole numbers, as in 0,1")
    return [int(item) for item in items]
