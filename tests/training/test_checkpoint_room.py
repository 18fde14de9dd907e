"""A disk that runs full, for which a limit on the size of files stands in: one line, and what was saved stays whole."""

from pathlib import Path

import orbax.checkpoint as ocp
import pytest
from script_runs import run
from tiny import tiny_config, with_train
from training.run_results import read_metrics

from ledit_jax.errors import OutputError
from ledit_jax.training.loop import train
from ledit_jax.weights import load_weights

TRAIN = """
import sys
from ledit_jax import cli
from tiny import tiny_config
from ledit_jax.training.loop import train

workdir = sys.argv.pop()
cli.run(lambda: train(tiny_config(), workdir), "A test.")
"""


def test_a_checkpoint_that_does_not_fit_is_one_line_and_the_run_goes_on_from_the_one_before(tmp_path: Path):
    script, workdir = tmp_path / "run.py", tmp_path / "run"
    script.write_text(TRAIN)
    train(tiny_config(train=dict(num_steps=4)), workdir)
    result = run(str(script), str(workdir), most_bytes=20_000)
    assert result.returncode == 1, result.stderr
    lines = result.stderr.splitlines()
    assert lines[-1].startswith(f"error: {workdir / 'checkpoints'} cannot be written (File too large; ")
    assert "MiB are free there): make room and run it again" in lines[-1]
    assert lines[-2].startswith("step 8/8") and "Traceback" not in result.stderr, result.stderr
    assert load_weights(workdir)[2] == 4
    train(tiny_config(), workdir)
    assert load_weights(workdir)[2] == 8 and sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4", "8"]


def test_a_checkpoint_that_was_not_written_ends_the_run_at_the_next_step(tmp_path, monkeypatch):
    """Orbax finds out in a thread of its own, and would say so at the next checkpoint."""
    asked = []

    def fail(manager):
        asked.append(manager)
        if len(asked) > 3:
            raise ValueError("Error writing d/2f: Failed to write 7957 bytes: File too large")

    monkeypatch.setattr(ocp.CheckpointManager, "check_for_errors", fail)
    with pytest.raises(
        OutputError, match="checkpoints cannot be written .File too large; .* MiB are free there.: make"
    ):
        train(with_train(tiny_config(), checkpoint_every=100), tmp_path)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
