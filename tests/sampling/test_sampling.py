"""Samples in shards: nothing repeated or lost by a kill, the same on one device, on eight and in two processes."""

import contextlib
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from launch import free_address
from script_runs import Script
from tiny import cpu_devices, noisy_params, tiny_config

from ledit_jax.config import SampleConfig
from ledit_jax.errors import LEDiTError, OutputError
from ledit_jax.files import PieceFolder
from ledit_jax.sampling import run as sampling
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.recipe import Recipe
from ledit_jax.sampling.run import write_samples
from ledit_jax.sampling.shards import open_shards
from ledit_jax.weights import export_weights

ROOT = Path(__file__).parents[2]
OPTIONS = SampleConfig(sampler="ddim", num_steps=3)


def recipe(**fields):
    values = dict(checkpoint="c", step=1, weights="ema", weights_id="a", vae=None, vae_id=None)
    values |= dict(labels="balanced", classes=(1, 4, 7))
    return Recipe(**(values | dict(num_samples=11, height=8, width=12, seed=0, options=OPTIONS) | fields))


@pytest.fixture(scope="module")
def pipeline():
    config = tiny_config()
    return LEDiTPipeline(config, noisy_params(config))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("checkpoint") / "c", tiny_config()
    export_weights(folder, noisy_params(config), config, step=3)
    return folder


def read(path):
    with np.load(path) as archive:
        assert archive.files == ["arr_0"]
        return archive["arr_0"]


class TestLabels:
    def test_balanced_counts_differ_by_one_at_most(self):
        labels = recipe(num_samples=100, classes=tuple(range(7))).choose()
        assert set(np.bincount(labels)) == {14, 15}

    def test_random_is_uniform_and_reproducible(self):
        many = recipe(labels="random", num_samples=20_000, classes=(2, 5, 6, 9)).choose()
        counts = np.bincount(many)[[2, 5, 6, 9]]
        assert counts.sum() == 20_000 and abs(counts - 5000).max() < 250  # four standard deviations
        assert len(set(counts)) > 1
        few = recipe(labels="random", num_samples=50, classes=(2, 5, 6, 9)).choose()
        np.testing.assert_array_equal(few, many[:50])
        other = recipe(labels="random", num_samples=50, classes=(2, 5, 6, 9), seed=1).choose()
        assert few != other


def test_npz_has_every_image_in_its_place_and_the_recipe_beside_it(pipeline, tmp_path):
    write_samples(tmp_path / "x.npz", pipeline, recipe(), batch_size=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npz", "x.recipe.json"]
    images = read(tmp_path / "x.npz")
    assert images.shape == (11, 8, 12, 3) and images.dtype == np.uint8
    expected = pipeline(recipe().choose(), 8, 12, options=OPTIONS)
    assert np.abs(images.astype(int) - expected).max() <= 1 and expected.std() > 10
    written = json.loads((tmp_path / "x.recipe.json").read_text())
    assert {"checkpoint", "step", "weights", "sampler", "num_steps", "cfg_scale", "cfg_channels", "cfg_interval"} < set(
        written
    )
    assert {"attention_scaling", "seed", "height", "width", "labels", "classes", "versions"} < set(written)
    assert written["step"] == 1 and written["num_samples"] == 11


def test_going_on_repeats_nothing_and_loses_nothing(pipeline, tmp_path, monkeypatch):
    write_samples(tmp_path / "whole.npz", pipeline, recipe(), batch_size=2)
    drawn, draw = [], sampling._draw

    def stop_at_third(pipeline, recipe, asked, indices, batch_size):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(indices)
        return draw(pipeline, recipe, asked, indices, batch_size)

    monkeypatch.setattr(sampling, "_draw", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        write_samples(tmp_path / "x.npz", pipeline, recipe(), batch_size=2)
    assert not (tmp_path / "x.npz").exists()
    monkeypatch.setattr(sampling, "_draw", lambda *a: drawn.append(a[3]) or draw(*a))
    write_samples(tmp_path / "x.npz", pipeline, recipe(), batch_size=4)  # shards keep the size that they began with
    assert [r.start for r in drawn] == [0, 2, 4, 6, 8, 10]
    assert np.abs(read(tmp_path / "x.npz").astype(int) - read(tmp_path / "whole.npz")).max() <= 1


def test_shards_of_another_recipe_are_not_mixed_in(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "_assemble", lambda *a: None)  # as if killed before
    write_samples(tmp_path / "x.npz", pipeline, recipe(), batch_size=8)
    with pytest.raises(OutputError, match=r"x.npz.shards was begun with other .* \(recipe.seed=0 there, 1 here\)"):
        write_samples(tmp_path / "x.npz", pipeline, recipe(seed=1), batch_size=8)
    monkeypatch.undo()
    write_samples(tmp_path / "x.npz", pipeline, recipe(seed=1), batch_size=8, overwrite=True)
    assert json.loads((tmp_path / "x.recipe.json").read_text())["seed"] == 1
    with pytest.raises(OutputError, match="exists already"):
        write_samples(tmp_path / "x.npz", pipeline, recipe(seed=1), batch_size=8)


def test_a_folder_of_somebody_elses_is_left_alone(pipeline, tmp_path):
    (tmp_path / "x.npz.shards").mkdir()
    (tmp_path / "x.npz.shards" / "thesis.txt").write_text("precious")
    for _ in range(2):
        with pytest.raises(OutputError, match="x.npz.shards (holds other things|was begun with other settings)"):
            write_samples(tmp_path / "x.npz", pipeline, recipe(), batch_size=8, overwrite=True)
        assert (tmp_path / "x.npz.shards" / "thesis.txt").read_text() == "precious"
        (tmp_path / "x.npz.shards" / "recipe.json").write_text('{"flour": 500}')


def test_a_damaged_shard_is_named_and_drawn_again(pipeline, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sampling, "_assemble", lambda *a: None)  # as if killed before
    write_samples(tmp_path / "x.npz", pipeline, recipe(), batch_size=4)
    monkeypatch.undo()
    shard = tmp_path / "x.npz.shards" / "000001.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    write_samples(tmp_path / "x.npz", pipeline, recipe(), batch_size=4)
    assert "000001.npy is damaged or cut short" in caplog.text
    images = read(tmp_path / "x.npz")
    assert len(images) == 11 and images[4:8, ..., 0].tobytes() == whole[-images[4:8, ..., 0].size :]


def test_killed_while_assembling(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(PieceFolder, "remove", lambda self: None)  # killed after the rename, before the clean-up
    write_samples(tmp_path / "x.npz", pipeline, recipe(), batch_size=8)
    first = read(tmp_path / "x.npz")
    monkeypatch.undo()
    (tmp_path / ".partial-x.npz").write_bytes(b"half")
    write_samples(tmp_path / "x.npz", pipeline, recipe(), batch_size=8)
    np.testing.assert_array_equal(read(tmp_path / "x.npz"), first)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npz", "x.recipe.json"]


def test_assembly_holds_one_shard_at_a_time(pipeline, tmp_path, monkeypatch):
    sizes, open_writer = [], sampling.open_writer

    @contextlib.contextmanager
    def watched(*arguments, **keywords):
        with open_writer(*arguments, **keywords) as write:
            yield lambda images: sizes.append(len(images)) or write(images)

    monkeypatch.setattr(sampling, "open_writer", watched)
    write_samples(tmp_path / "x.npz", pipeline, recipe(), batch_size=4)
    assert sizes == [4, 4, 3]


def command(checkpoint, out, *flags):
    base = ["sample.py", f"--checkpoint={checkpoint}", f"--out={out}", "--num_samples=29"]
    return [*base, "--batch_size=3", "--sampler=ddim", "--num_steps=6", "--labels=random", *flags]


def start(command, folder, devices=1):
    log = folder.parent / f"{folder.name}-{time.time_ns()}.log"  # beside the folder, whose contents are looked at
    return Script(command, log, log, XLA_FLAGS=cpu_devices(devices))


def finish(*processes):
    for process in processes:
        assert process.wait() == 0, process.stderr.read_text()


@pytest.fixture(scope="module")
def undisturbed(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "x.npz"
    finish(start(command(checkpoint, out), out.parent))
    return read(out)


def test_killed_twice_and_gone_on_with_equals_undisturbed_bit_for_bit(checkpoint, undisturbed, tmp_path):
    out, shards = tmp_path / "x.npz", tmp_path / "x.npz.shards"
    kept = {}
    for wanted in (2, 5):
        process = start(command(checkpoint, out), tmp_path)
        deadline = time.time() + 200
        while len(list(shards.glob("[0-9]*.npy"))) < wanted and process.poll() is None and time.time() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
        assert not out.exists()
        for name, time_written in kept.items():
            assert (shards / name).stat().st_mtime_ns == time_written, "a shard was drawn again"
        kept = {path.name: path.stat().st_mtime_ns for path in shards.glob("[0-9]*.npy")}
    finish(start(command(checkpoint, out), tmp_path))
    np.testing.assert_array_equal(read(out), undisturbed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npz", "x.recipe.json"]


def test_eight_devices_draw_the_same_images_bit_for_bit(checkpoint, undisturbed, tmp_path):
    finish(start(command(checkpoint, tmp_path / "x.npz"), tmp_path, devices=8))
    np.testing.assert_array_equal(read(tmp_path / "x.npz"), undisturbed)


def test_two_processes_draw_their_own_shards(checkpoint, undisturbed, tmp_path):
    group = [f"--coordinator_address={free_address()}", "--num_processes=2"]
    commands = [command(checkpoint, tmp_path / "x.npz", *group, f"--process_id={i}") for i in range(2)]
    finish(*(start(one, tmp_path) for one in commands))
    np.testing.assert_array_equal(read(tmp_path / "x.npz"), undisturbed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npz", "x.recipe.json"]


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(num_samples=10**12), "are 268,220.9 GiB, and .* GiB are free"),
        (dict(height=10**6, width=10**6), "GiB are free"),
        (dict(seed=2**63), "seed=9223372036854775808 is too large"),
    ],
)
def test_what_cannot_be_held_is_refused_with_an_estimate(pipeline, tmp_path, fields, message):
    with pytest.raises(LEDiTError, match=message):
        write_samples(tmp_path / "x.npz", pipeline, recipe(**fields), batch_size=8)


def test_a_checkpoint_that_was_trained_anew_is_not_gone_on_with(tmp_path):
    open_shards(tmp_path / "x.npz", recipe().to_dict(), 4, overwrite=False)
    with pytest.raises(OutputError, match="weights_id=a there, b here"):
        open_shards(tmp_path / "x.npz", recipe(weights_id="b").to_dict(), 4, overwrite=False)
