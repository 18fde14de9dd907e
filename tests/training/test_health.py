"""What watches over a run: EMA drift, data wait, MFU, traces, and the record of each start."""

import dataclasses
import json
import subprocess
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import network_of, tiny_config, with_train
from training.run_results import read_metrics

from ledit_jax.errors import ConfigError
from ledit_jax.models import abstract_params
from ledit_jax.training import loop
from ledit_jax.training.loop import train
from ledit_jax.training.metrics import Stopwatch
from ledit_jax.training.profile import parse_profile
from ledit_jax.training.run_info import git_revision


def norm(tree) -> float:
    return np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(tree)))


def test_metrics_of_a_healthy_run(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "model_flops_utilization", lambda flops, kind, count: flops * count)
    config = with_train(tiny_config(), num_steps=3)
    state = train(config, tmp_path)
    rows = read_metrics(tmp_path)
    drift = norm(jax.tree.map(jnp.subtract, state.ema, state.params)) / norm(state.params)
    assert rows[-1]["ema_drift"] == pytest.approx(drift, rel=1e-5) and drift > 0
    assert rows[0]["grad_norm"] > 0 and all(0 <= row["data_wait_share"] < 1 for row in rows)
    assert all(row["bad_records"] == 0 for row in rows)
    flops = loop.train_step_flops(abstract_params(network_of(config)), config.token_grid(), config.train.batch_size)
    assert all(row["mfu"] == pytest.approx(row["steps_per_sec"] * flops) for row in rows)


def test_no_mfu_on_a_device_without_a_known_peak(tmp_path):
    train(with_train(tiny_config(), num_steps=1), tmp_path)
    assert "mfu" not in read_metrics(tmp_path)[0]


def test_waiting_for_data_shows(tmp_path, monkeypatch):
    make = loop.make_loader

    def slow(*arguments, **options):
        loader = make(*arguments, **options)
        read = type(loader).__next__
        monkeypatch.setattr(type(loader), "__next__", lambda self: (time.sleep(0.2), read(self))[1])
        return loader

    monkeypatch.setattr(loop, "make_loader", slow)
    train(with_train(tiny_config(), num_steps=4), tmp_path)
    assert max(row["data_wait_share"] for row in read_metrics(tmp_path)) > 0.5


def test_stopwatch_counts_since_it_was_last_asked():
    watch = Stopwatch()
    with watch:
        time.sleep(0.05)
    assert watch.share() > 0.5
    time.sleep(0.02)
    assert watch.share() == 0


def test_profile_traces_the_steps_asked_for(tmp_path, caplog):
    with caplog.at_level("INFO", logger="ledit_jax"):
        train(with_train(tiny_config(), num_steps=4), tmp_path, profile=(1, 2))
    assert "traced 2 steps from step 1 on" in caplog.text
    traces = list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 1 and b"train_step" in traces[0].read_bytes()
    with caplog.at_level("INFO", logger="ledit_jax"):
        train(with_train(tiny_config(), num_steps=5), tmp_path, profile=(1, 2))
    assert "profile=1:2 lies behind: this run goes on at step 4" in caplog.text
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


def test_a_run_that_ends_within_a_trace_still_writes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_report", lambda *_: (_ for _ in ()).throw(loop.TrainingStopped("step 2")))
    with pytest.raises(loop.TrainingStopped):
        train(tiny_config(), tmp_path, profile=(0, 6))
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


def test_profile_flag():
    assert parse_profile("20:5", 25) == (20, 5)
    for text in ("20", "20:", ":5", "a:5", "20:0", "-1:5", "1:2:3", "²:5", "9" * 5000 + ":1"):
        with pytest.raises(ConfigError, match=r"profile=.* must be START:COUNT"):
            parse_profile(text, 100)
    with pytest.raises(ConfigError, match=r"profile=20:6 reaches beyond train.num_steps=25"):
        parse_profile("20:6", 25)


def test_every_start_is_recorded(tmp_path):
    config = with_train(tiny_config(), num_steps=2)
    train(config, tmp_path)
    train(with_train(config, num_steps=3), tmp_path)
    starts = json.loads((tmp_path / "run.json").read_text())
    assert [start["step"] for start in starts] == [0, 2]
    assert [start["config"]["train"]["num_steps"] for start in starts] == [2, 3]
    assert starts[0]["config"] == json.loads(json.dumps(dataclasses.asdict(config)))
    for start in starts:
        assert start["versions"]["jax"] == jax.__version__ and start["versions"]["python"].startswith("3.")
        assert start["devices"] == {"kind": jax.devices()[0].device_kind, "count": 1, "processes": 1}
        assert start["command"] and start["time"].endswith("+00:00")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_git_revision_and_dirt(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    assert git_revision(package) is None
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    assert git_revision(package) is None  # there, and not tracked: installed below another project's checkout
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    revision = git(tmp_path, "rev-parse", "HEAD")
    assert git_revision(package) == {"revision": revision, "dirty": False}
    (tmp_path / "notes.txt").write_text("not tracked, no part of the source")
    assert git_revision(package) == {"revision": revision, "dirty": False}
    (package / "__init__.py").write_text("changed = True\n")
    assert git_revision(package) == {"revision": revision, "dirty": True}
