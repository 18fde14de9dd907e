"""Which rows of a batch a process loads: several processes train as one with as many devices, on labels or captions."""

import json
from pathlib import Path

import numpy as np
import pytest
from launch import Launch

STEPS, BATCH = 2, 8

# What each process runs. A single process takes the shares of all and joins them, and so has the same batches.
RUN = """
import dataclasses, json, pathlib, sys, zlib
import jax, numpy as np
from tiny import Captioned, tiny_config, tiny_mmdit
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
    out, network, sizes, shares, count, address, index = sys.argv[1:]
    start_processes(*((address, int(count), int(index)) if address else ()), timeout=200)
    assert jax.process_count() == int(count), jax.devices()
    seen, place, load = [], jax.make_array_from_process_local_data, loop.make_loader

    def watched(sharding, values, *rest):
        seen.append([zlib.crc32(row.tobytes()) for row in values])
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
    if network == "mmdit":
        config = tiny_mmdit(train=train_settings)
    else:
        config = tiny_config(model=dict(depth=1, block_order="ca"), train=train_settings)
    data = dataclasses.replace(config.data, source="shapes")
    config = dataclasses.replace(config, data=data, mesh=MeshConfig(*json.loads(sizes)))
    state = loop.train(config, pathlib.Path(out) / "run", source=Captioned(config) if network == "mmdit" else None)
    np.savez(pathlib.Path(out) / f"{index}.npz", seen=seen, **{
        f"{jax.tree_util.keystr(path)} {shard.index}": shard.data
        for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.ema))
        for shard in leaf.addressable_shards
    })
""".replace("STEPS", str(STEPS)).replace("BATCH", str(BATCH))


def run(out: Path, network: str, mesh: tuple[int, int, int], shares: int, count: int) -> tuple[list, list[dict]]:
    """(losses, for each process the checksums `seen` of what it loaded, and its pieces of the weights by name)."""
    out.mkdir()
    devices = int(np.prod(mesh)) // count
    arguments = out, network, json.dumps(mesh), shares, count
    Launch(RUN, out, "log", *arguments, count=count, devices=devices).run_to_the_end()
    rows = [json.loads(row) for row in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(np.isclose(row["images_per_sec"], row["steps_per_sec"] * BATCH) for row in rows)
    return [row["loss"] for row in rows], [dict(np.load(out / f"{i}.npz")) for i in range(count)]


@pytest.mark.parametrize(
    "network, mesh, shares", [("mmdit", (1, 2, 1), [0, 1]), ("ledit", (2, 1, 2), [0, 0, 1, 1])], ids=["2", "4"]
)
def test_processes_train_as_one(tmp_path, network, mesh, shares):
    """A process for each device, as pods.md starts them on GPUs; told captions with weights split, and a tensor axis.

    Each loads its share of what one process would: the same records and, drawn of several, the same captions.
    """
    num_shares = max(shares) + 1
    expected, [one] = run(tmp_path / "one", network, mesh, num_shares, count=1)
    losses, processes = run(tmp_path / "many", network, mesh, num_shares, count=len(shares))

    all_seen, size = one.pop("seen"), BATCH // num_shares
    assert all_seen.shape == (STEPS * {"ledit": 2, "mmdit": 3}[network], BATCH)
    for process, share in zip(processes, shares, strict=True):
        np.testing.assert_array_equal(process.pop("seen"), all_seen[:, share * size : (share + 1) * size])
    np.testing.assert_allclose(losses, expected, rtol=1e-5)

    copies: dict[str, list[np.ndarray]] = {}
    for process in processes:
        for name, piece in process.items():
            copies.setdefault(name, []).append(piece)
            np.testing.assert_allclose(piece, one[name], rtol=1e-5, atol=1e-6, err_msg=name)
            np.testing.assert_array_equal(piece, copies[name][0], err_msg=name)
    assert copies.keys() == one.keys()
    assert {len(found) for found in copies.values()} == {len(shares), len(shares) // 2}
