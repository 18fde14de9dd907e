"""A workdir in a bucket, for which fsspec's file system in memory stands: copied, and read as any other."""

import functools
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tiny import noisy_params, tiny_config

from ledit_jax.errors import CheckpointError
from ledit_jax.hub import resolve
from ledit_jax.weights import export_weights, load_weights
from ledit_jax.weights.about import About, load_about, write_about


class Bucket(MemoryFileSystem):
    """What is at gs://bucket/x lies at /bucket/x."""

    protocol = ("gs", "gcs")

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("gs://", "memory://"))


@pytest.fixture
def bucket():
    for name in Bucket.protocol:
        fsspec.register_implementation(name, Bucket, clobber=True)
    yield Bucket()
    Bucket.store.clear()


def test_the_newest_whole_step_is_copied_once(bucket, tmp_path, monkeypatch):
    config, params = tiny_config(), noisy_params(tiny_config())
    for step, scale in ((1, 1.0), (2, 2.0)):
        export_weights(tmp_path / str(step), jax.tree.map(lambda a, s=scale: s * a, params), config, step)
        bucket.put(f"{tmp_path}/{step}/{step}", f"/bucket/run/checkpoints/{step}", recursive=True)
    bucket.rm("/bucket/run/checkpoints/2/_CHECKPOINT_METADATA")  # as an upload that was cut off leaves it
    write_about(tmp_path, About(class_names=("a", "b")))
    bucket.put(str(tmp_path / "about.json"), "/bucket/run/checkpoints/about.json")

    copy = functools.partial(resolve, cache_dir=tmp_path / "cache")
    folder = copy("gs://bucket/run")
    loaded, again, step = load_weights(folder)
    assert (again, step, load_about(folder).class_names) == (config, 1, ("a", "b"))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert copy("gs://bucket/run") == folder

    bucket.put(f"{tmp_path}/2/2/_CHECKPOINT_METADATA", "/bucket/run/checkpoints/2/_CHECKPOINT_METADATA")
    assert load_weights(copy("gs://bucket/run"))[2] == 2


def test_refusals(bucket, tmp_path):
    for name, message in (
        ("gs://bucket/none", "gs://bucket/none holds no checkpoint of ours"),
        ("az://bucket/x", "az://bucket/x cannot be read .*: pip install adlfs"),
    ):
        with pytest.raises(CheckpointError, match=message):
            resolve(name, cache_dir=tmp_path)
    assert not [path for path in Path(tmp_path).rglob("*") if path.is_file()]
