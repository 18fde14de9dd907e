"""What runs leave, and whether two of them left the same."""

import json

import jax
import numpy as np


def leaves(state):
    return [np.asarray(a) for a in jax.tree.leaves(state)]


def assert_same(a, b):
    assert len(leaves(a)) == len(leaves(b))
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def read_metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
