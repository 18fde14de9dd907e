"""Ten losses of a run on digits, written down: what no oracle sees, a change of anything between config and metrics.

They cover what a run is made of together: the order of the data, its preparation, initialisation, the draws of each
step, when it dilates, the loss, the optimiser and its rate.

When to renew them: only with a change that is meant to give other numbers to the same command (another
initialisation, other draws, another order of the data), which then says so in its description. A change of layout, of
names or of speed keeps them. Compiled at another level of optimisation, or with fast math, the same run differs by less
than 3e-6, which leaves the tolerance room for other versions of jax.

How: run this file and copy the losses from the failure's message.
"""

import json

import pytest
from tiny import tiny_config

from ledit_jax.training.loop import train

LOSSES = [
    0.9734385,
    0.9339681,
    1.0892229,
    1.0412023,
    0.9671309,
    0.8979727,
    0.9906382,
    0.9635864,
    0.9832532,
    0.8689455,
]


def test_ten_losses_are_those_written_down(tmp_path):
    train(tiny_config(train=dict(num_steps=10)), tmp_path)
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(row)["loss"] for row in rows]
    assert losses == pytest.approx(LOSSES, rel=1e-5), losses
