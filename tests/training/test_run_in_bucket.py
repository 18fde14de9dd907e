"""A run in a bucket: trained, stopped and resumed there, read from there, and images and latents written there."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest
from data.encoding_files import AUTOENCODER
from object_store import BUCKET
from PIL import Image
from tiny import tiny_config
from training.run_results import assert_same

from ledit_jax.config import Config, DataConfig
from ledit_jax.data import make_source
from ledit_jax.data.class_names import class_names
from ledit_jax.data.encoding import encode_latents
from ledit_jax.errors import CheckpointError, DataError, LEDiTError, OutputError
from ledit_jax.evaluation.images import open_images
from ledit_jax.files import as_place, write_json
from ledit_jax.files.bucket import put
from ledit_jax.hub import resolve
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.recipe import make_recipe
from ledit_jax.sampling.run import write_grid, write_samples
from ledit_jax.training import bucket_lock
from ledit_jax.training.hooks import Hook
from ledit_jax.training.lock import LOCK_FILE
from ledit_jax.training.loop import train

RUN = f"{BUCKET}/run"


class Thumbnails:
    """An `Encoder` whose latents are the images at half their size."""

    name, fingerprint, image_channels, latent_channels, downsample, num_devices = "none", "f" * 16, 3, 4, 2, 1

    def check_fits(self, batch_shape):
        pass

    def compile(self, batch_shape):
        return lambda images: [np.float32(images[:, ::2, ::2, [0, 1, 2, i % 3]] / 255) for i in range(4)]


@pytest.fixture(scope="module", autouse=True)
def store(object_store, tmp_path_factory):
    constants = pytest.importorskip("huggingface_hub.constants")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    object_store.clear()  # a worker may come back to this module, and finds an empty bucket


@pytest.fixture(scope="module")
def stopped():
    """The state of a run that SIGTERM stopped at its fifth step of eight."""
    state = train(tiny_config(), RUN, hooks=[Hook(5, lambda *_: os.kill(os.getpid(), signal.SIGTERM))])
    assert int(state.step) == 5
    return state


@pytest.fixture(scope="module")
def finished(stopped):
    """(the state of the run to its end, what lay there then); a save that was cut off lay in its way."""
    place = as_place(RUN)
    (place / "checkpoints" / "7" / "ema" / "x").write_text("half of it")
    state = train(tiny_config(), RUN)
    rows = [json.loads(line)["step"] for line in (place / "metrics.jsonl").read_text().splitlines()]
    starts = [start["step"] for start in json.loads((place / "run.json").read_text())]
    checkpoints = {path.name for path in (place / "checkpoints").iterdir()}
    return state, (rows, starts, checkpoints, len(list(place.glob("events.*"))), (place / LOCK_FILE).exists())


@pytest.fixture(scope="module")
def state(finished):
    return finished[0]


def test_a_resumed_run_is_bit_for_bit_one_on_a_disk(finished, tmp_path):
    state, there = finished
    assert_same(state, train(tiny_config(), tmp_path))
    assert there == (list(range(1, 9)), [0, 5], {"4", "5", "8"}, 2, False)


def test_another_run_is_kept_out_as_long_as_it_lives(state, monkeypatch, caplog):
    place, other = as_place(RUN) / LOCK_FILE, {"pid": 1, "host": "node-7", "since": "then", "token": "t"}
    monkeypatch.setattr(bucket_lock, "BEAT", 0.3)
    write_json(place, other)

    renewed = place.with_name(f"{LOCK_FILE}.beat")
    monkeypatch.setattr(bucket_lock.time, "sleep", lambda _: write_json(renewed, {"beats": 1}))
    with pytest.raises(OutputError, match=f"workdir={RUN} is being trained in by process 1 on node-7, since then"):
        train(tiny_config(), RUN)
    monkeypatch.undo()
    monkeypatch.setattr(bucket_lock, "BEAT", 0.05)
    longer = tiny_config(train=dict(num_steps=20))
    take = Hook(9, lambda *_: write_json(place, other))
    with pytest.raises(OutputError, match=f"workdir={RUN} was taken or removed while this run was silent"):
        train(longer, RUN, hooks=[take])
    assert json.loads(place.read_text()) == other, "what another has is left to it"
    place.unlink()


def test_samples_of_it_are_written_there_and_judged_there(state, tmp_path):
    folder = resolve(RUN)
    assert resolve(RUN) == folder and "bucket" not in folder.partition("copies")[0]
    pipeline = LEDiTPipeline.from_checkpoint(folder)
    jax.tree.map(np.testing.assert_array_equal, pipeline.params, state.ema)
    recipe = make_recipe(
        pipeline,
        checkpoint=folder,
        weights="ema",
        vae=None,
        classes=None,
        prompts=None,
        labels="balanced",
        num_samples=5,
        height=None,
        width=None,
        seed=0,
        options=pipeline.options(),
    )
    for out in (tmp_path, as_place(f"{BUCKET}/out")):
        write_grid(out / "x.png", pipeline, recipe, batch_size=5, columns=5, overwrite=False)
        for name in ("x.npz", "folder"):
            write_samples(out / name, pipeline, recipe, batch_size=2)
    out = as_place(f"{BUCKET}/out")
    assert (out / "x.png").read_bytes() == (tmp_path / "x.png").read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in tmp_path.iterdir())
    here, there = (next(open_images(f"{place}/x.npz").batches(5)) for place in (tmp_path, out))
    np.testing.assert_array_equal(here, there)
    assert (out / "folder" / "000004.png").read_bytes() == (tmp_path / "folder" / "000004.png").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_samples(out / "x.npz", pipeline, recipe, batch_size=2)


def test_images_and_latents(tmp_path):
    for index in range(12):
        path = tmp_path / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 12), 40 + index).convert("RGB").resize((12, 16)).save(path)
    put(tmp_path / "images", as_place(f"{BUCKET}/images"))
    data = DataConfig(path=f"{BUCKET}/images", source="image_folder", image_height=16, image_width=12)
    local = dataclasses.replace(data, path=str(tmp_path / "images"))
    encoder, sizes = Thumbnails(), dict(scale=0.5, batch_size=4, shard_size=5)
    there, here = f"{BUCKET}/latents", tmp_path / "latents"
    report = encode_latents(data, encoder, there, **sizes, part=(0, 2))
    assert (report.encoded, report.missing) == (7, 1)
    assert encode_latents(data, encoder, there, **sizes).metadata.count == 12
    encode_latents(local, encoder, here, **sizes)
    autoencoder = dataclasses.replace(AUTOENCODER, scale=0.5)
    pair = [make_source(dataclasses.replace(data, source="latents", path=str(p)), autoencoder) for p in (there, here)]
    jax.tree.map(np.testing.assert_array_equal, pair[0][7], pair[1][7])

    values = tiny_config(train=dict(num_steps=1, dilation_probability=0.0)).to_dict()
    values["data"] |= dict(source="latents", path=there, image_height=16, image_width=12, image_channels=3)
    values["autoencoder"] |= dataclasses.asdict(autoencoder)
    assert int(train(Config.from_dict(values), f"{BUCKET}/on_latents").step) == 1
    of_two = Config.from_dict(values | {"data": values["data"] | {"source": "image_folder", "path": data.path}})
    assert class_names(of_two.replaced("model", num_classes=2)) == ["a", "b"]


def test_refusals(tmp_path):
    config = tiny_config()
    for kind, message, call in (
        (OutputError, "s3://b/run is an address, and no folder here: mount", lambda: train(config, "s3://b/run")),
        (OutputError, "gs://none/run.* cannot be (read|written)", lambda: train(config, "gs://none/run")),
        (DataError, "gs://bucket/no is not there, or empty", lambda: open_images("gs://bucket/no")),
        (CheckpointError, "gs://bucket/no holds no checkpoint of ours", lambda: resolve("gs://bucket/no")),
        (LEDiTError, "az://b/x cannot be read .*pip install adlfs", lambda: resolve("az://b/x")),
    ):
        with pytest.raises(kind, match=message):
            call()
