"""A disk that runs full, for which a limit on the size of files stands in: one line, and what was saved stays whole."""

from pathlib import Path

from script_runs import run
from tiny import tiny_config

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
    assert lines[-2].startswith("step 8/8") and len(lines) == 7, result.stderr
    assert load_weights(workdir)[2] == 4
    train(tiny_config(), workdir)
    assert load_weights(workdir)[2] == 8 and sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4", "8"]
