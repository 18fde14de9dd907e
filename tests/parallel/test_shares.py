"""Which rows of a batch a process loads: a tensor axis over processes trains as one process with as many devices."""

import json
from pathlib import Path

import numpy as np
import pytest
from launch import Launch

STEPS, BATCH = 2, 8

# What each process runs. A single process takes the shares of all and joins them, and so has the same batches.
RUN = """
import dataclasses, hashlib, json, pathlib, sys
import jax, numpy as np
from tiny import tiny_config
import ledit_jax.training.loop as loop
from ledit_jax.config import MeshConfig
from ledit_jax.parallel.processes import start_processes

class Joined:
    def __init__(self, loaders):
        self.loaders = loaders

    def __next__(self):
        return jax.tree.map(lambda *parts: np.concatenate(parts), *map(next, self.loaders))

    def close(self):
        for loader in self.loaders:
            loader.close()

    def __getattr__(self, name):
        return getattr(self.loaders[0], name)

if __name__ == "__main__":
    out, sizes, shares, count, address, index = sys.argv[1:]
    start_processes(*((address, int(count), int(index)) if address else ()), timeout=200)
    assert jax.process_count() == int(count), jax.devices()
    labels, place, load = [], jax.make_array_from_process_local_data, loop.make_loader

    def watched(sharding, values, *rest):
        labels.extend(leaf.tolist() for leaf in jax.tree.leaves(values) if leaf.dtype == np.int32)
        return place(sharding, values, *rest)

    def joined(*arguments, batch_size, process_index, process_count, **options):
        n = int(shares)
        return Joined([
            load(*arguments, batch_size=batch_size // n, process_index=i, process_count=n, **options) for i in range(n)
        ])

    jax.make_array_from_process_local_data = watched
    loop.Run.save = lambda run, state: None  # a quarter of the time, and other tests'
    if count == "1":
        loop.make_loader = joined
    train_settings = dict(num_steps=STEPS, batch_size=BATCH, checkpoint_every=100, dilation_probability=0.0)
    config = tiny_config(model=dict(scan_layers=True, block_order="ca"), train=train_settings)
    data = dataclasses.replace(config.data, source="shapes")
    config = dataclasses.replace(config, data=data, mesh=MeshConfig(*json.loads(sizes)))
    state = loop.train(config, pathlib.Path(out) / "run")
    pieces = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.ema)):
        for shard in leaf.addressable_shards:
            name = f"{jax.tree_util.keystr(path)} {shard.index}"
            pieces.setdefault(name, []).append(hashlib.sha256(np.asarray(shard.data).tobytes()).hexdigest())
    (pathlib.Path(out) / f"{index}.json").write_text(json.dumps([labels, pieces]))
""".replace("STEPS", str(STEPS)).replace("BATCH", str(BATCH))


def run(out: Path, mesh: tuple[int, int, int], shares: int, count: int) -> tuple[list, list]:
    """(losses, [labels and digests of pieces of weights of each process]) of a run by `count` processes."""
    out.mkdir()
    devices = int(np.prod(mesh)) // count
    Launch(RUN, out, "log", out, json.dumps(mesh), shares, count, count=count, devices=devices).run_to_the_end()
    rows = [json.loads(row) for row in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(np.isclose(row["images_per_sec"], row["steps_per_sec"] * BATCH) for row in rows)
    return [row["loss"] for row in rows], [json.loads((out / f"{i}.json").read_text()) for i in range(count)]


@pytest.mark.parametrize("mesh, shares", [((1, 1, 2), [0, 0]), ((2, 1, 2), [0, 0, 1, 1])], ids=["2", "4"])
def test_a_tensor_axis_over_processes_trains_as_one_process(tmp_path, mesh, shares):
    """One process for each device, as pods.md starts them on GPUs."""
    num_shares = max(shares) + 1
    expected, [(all_labels, _)] = run(tmp_path / "one", mesh, num_shares, count=1)
    losses, processes = run(tmp_path / "many", mesh, num_shares, count=len(shares))

    assert [len(labels) for labels in all_labels] == [BATCH] * STEPS
    size = BATCH // num_shares
    for (labels, _), share in zip(processes, shares, strict=True):
        assert labels == [batch[share * size : (share + 1) * size] for batch in all_labels]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)

    copies: dict[str, list[str]] = {}
    for _, pieces in processes:
        for name, digests in pieces.items():
            copies.setdefault(name, []).extend(digests)
    replicated = {name: digests for name, digests in copies.items() if len(digests) > 1}
    assert len(replicated) > 10 and all(len(set(digests)) == 1 for digests in replicated.values())
