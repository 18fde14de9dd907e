"""A workdir of a disk that was copied to a bucket: its newest whole step is copied to the cache, and read there."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest
from object_store import BUCKET
from tiny import noisy_params, tiny_config

from ledit_jax.convert.output import check_output
from ledit_jax.errors import CheckpointError, OutputError
from ledit_jax.files import as_place
from ledit_jax.files.bucket import put
from ledit_jax.hub import resolve
from ledit_jax.weights import export_weights, load_weights
from ledit_jax.weights.about import About, load_about, write_about

RUN = f"{BUCKET}/copied"


def test_the_newest_whole_step_is_copied_once(object_store, tmp_path):
    config, params = tiny_config(), noisy_params(tiny_config())
    place = as_place(RUN) / "checkpoints"
    for step, scale in ((1, 1.0), (2, 2.0)):
        export_weights(tmp_path / str(step), jax.tree.map(lambda a, s=scale: s * a, params), config, step)
        put(tmp_path / str(step) / str(step), place / str(step))
    mark = place / "2" / "_CHECKPOINT_METADATA"
    whole = mark.read_bytes()
    uploaded = {name: number for name, (number, _) in object_store.items() if "copied/checkpoints/2/" in name}
    assert max(uploaded, key=uploaded.get).endswith(("_CHECKPOINT_METADATA", "commit_success.txt"))
    with pytest.raises(OutputError, match=f"output={place}/2 exists already"):
        check_output(Path(f"{place}/2"), True, "x", False)
    mark.unlink()  # as an upload that was cut off leaves it
    write_about(place, About(class_names=("a", "b")))

    copy = functools.partial(resolve, cache_dir=tmp_path / "cache")
    folder = copy(RUN)
    loaded, again, step = load_weights(folder)
    assert (again, step, load_about(folder).class_names) == (config, 1, ("a", "b"))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert copy(RUN) == folder

    mark.write_text('{"commit_timestamp_nsecs": null}')  # as Orbax leaves it while it still writes
    assert copy(RUN) == folder
    mark.write_bytes(whole)
    assert load_weights(copy(RUN))[2] == 2


def test_refusals(object_store, tmp_path):
    for name, message in (
        (f"{BUCKET}/none", f"{BUCKET}/none holds no checkpoint of ours"),
        ("az://bucket/x", "az://bucket/x cannot be read .*: pip install adlfs"),
    ):
        with pytest.raises(CheckpointError, match=message):
            resolve(name, cache_dir=tmp_path)
    assert not [path for path in Path(tmp_path).rglob("*") if path.is_file()]
