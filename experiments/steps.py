"""The checkpoints of one run, and FID over its training steps: the paper's appendix L, for the sweep's `--steps`.

There, of fine-tuning at 256x256, more steps help at 256 throughout, and at 512 FID is best around 50,000 steps.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.sizes import Size, size_name
from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.evaluation.suite import Metrics, format_metric
from ledit_jax.evaluation.tables import markdown
from ledit_jax.weights import find_checkpoint

Case = tuple[Size, float]
"""A size and a guidance scale."""


def case_name(case: Case) -> str:
    """The stem of a case's files."""
    return f"{size_name(case[0])}-cfg{case[1]:g}"


def find_steps(checkpoint: str, wanted: Sequence[str]) -> dict[int, Path]:
    """The folders of a run's checkpoints by step, oldest first: those of the steps `wanted`, or of ["all"].

    checkpoint: a workdir of train.py or a folder of steps. Raises ConfigError for what is no step, and CheckpointError
    for one that the run has not kept.
    """
    parent = find_checkpoint(checkpoint).parent
    kept = {int(path.name): path for path in parent.iterdir() if path.name.isdecimal()}
    if list(wanted) == ["all"]:
        return dict(sorted(kept.items()))
    if not all(len(step) < 19 and step.isdecimal() for step in wanted):
        raise ConfigError(f"--steps={','.join(wanted)[:80]}: write whole numbers, as in 10000,50000, or all")
    steps = sorted({int(step) for step in wanted})
    missing = [str(step) for step in steps if step not in kept]
    if missing:
        there = ", ".join(map(str, sorted(kept)))
        raise CheckpointError(
            f"--steps: {parent} has no step {', '.join(missing)}; there are: {there} (train.keep_every says which stay)"
        )
    return {step: kept[step] for step in steps}


def steps_table(results: Mapping[int, Mapping[Case, Metrics]]) -> str:
    """Markdown: training steps down, sizes and guidance across, FID in the cells."""
    cases = list(dict.fromkeys(case for found in results.values() for case in found))
    rows = [
        [f"{step:,}", *(format_metric("fid", found[case].fid if case in found else None) for case in cases)]
        for step, found in results.items()
    ]
    return markdown(["FID at step", *map(case_name, cases)], rows)


def steps_figure(results: Mapping[int, Mapping[Case, Metrics]], path: Path) -> None:
    """FID against the training step, a line for each size and guidance scale."""
    from matplotlib.figure import Figure  # not pyplot: no global state, and no window whatever the backend

    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for case in dict.fromkeys(case for found in results.values() for case in found):
        points = [(step, found[case].fid) for step, found in results.items() if case in found]
        axes.plot(*zip(*points, strict=True), "o-", label=case_name(case))
    axes.set(xlabel="training step", ylabel="FID", ylim=(0, None))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
