"""train.py from its command line to its last file, with sample grids on the way."""

import json

import numpy as np
from PIL import Image
from script_runs import run

from ledit_jax.weights import load_weights


def test_a_run_leaves_what_its_help_promises(tmp_path):
    train = dict(num_steps=5, batch_size=8, log_every=1, checkpoint_every=3, sample_every=2)
    settings = [f"--config.train.{name}={value}" for name, value in train.items()]
    settings += ["--config.model.depth=2", "--config.model.width=16", "--config.sample.num_steps=3"]
    result = run("train.py", "--config=configs/digits.py", f"--workdir={tmp_path}", *settings)
    assert result.returncode == 0, result.stderr
    assert "step 5/5" in result.stderr and f"finished at step 5, saved in {tmp_path}" in result.stderr

    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5] and all(row["loss"] > 0 for row in rows)
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "5"]
    _, config, step = load_weights(tmp_path)
    assert (step, config.train.num_steps, config.model.width) == (5, 5, 16)
    (start,) = json.loads((tmp_path / "run.json").read_text())
    assert start["step"] == 0 and start["config"]["train"]["sample_every"] == 2

    grids = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in grids] == ["step_0000002.png", "step_0000004.png"]
    for path in grids:
        grid = np.asarray(Image.open(path))
        assert grid.shape[:2] == (4 * 18 + 2, 10 * 18 + 2)  # four rows of the ten digits, two pixels between
        cells = [grid[2 + 18 * r : 18 * r + 18, 2 + 18 * c : 18 * c + 18] for r in range(4) for c in range(10)]
        assert len({cell.tobytes() for cell in cells}) == 40 and min(cell.std() for cell in cells) > 10
