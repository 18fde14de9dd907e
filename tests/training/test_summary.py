"""What a run says before it starts, the time that it estimates, and metrics that go elsewhere."""

import json
import sys
import types
from pathlib import Path

import pytest
from tiny import network_of, tiny_config, tiny_mmdit, with_train
from training.run_results import read_metrics

from ledit_jax.config import Config
from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.models import abstract_params, count_params
from ledit_jax.training.loop import train
from ledit_jax.training.summary import attention_backend, estimate_memory
from ledit_jax.training.wandb_sink import WandbSink

COUNTED = Path(__file__).parents[2] / "benchmarks" / "results" / "compile_configs.json"


class FakeRun:
    """wandb's run, which notes what it is given, and fails from the fourth step on."""

    def __init__(self):
        self.rows, self.finished = [], False

    def log(self, metrics, step):
        if step >= 14:
            raise OSError("no network")
        self.rows.append((step, metrics["loss"]))

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    module = types.ModuleType("wandb")
    module.__spec__ = types.SimpleNamespace()
    module.runs, module.settings = [], []

    def init(**settings):
        module.settings.append(settings)
        module.runs.append(FakeRun())
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_table_time_sink_and_what_changed(tmp_path, wandb, caplog):
    caplog.set_level("INFO", "ledit_jax")
    config = with_train(tiny_config(), num_steps=12, checkpoint_every=12)
    train(config, tmp_path, sinks=[WandbSink("digits", config)])
    rows = dict(line.split(maxsplit=1) for line in caplog.text.splitlines() if line.split()[:1] and "  " in line)
    assert rows["tokens"] == "16 (4 x 4) of an image of 8x8"
    assert rows["data"] == "1,442 records of digits, 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert rows["watch"] == f"tensorboard --logdir={tmp_path}"
    assert rows["steps"] == "0 to 12, saved every 12" and rows["memory"].startswith("about 1 MiB: ")
    assert "seconds a step: about 00:00 for the 1 steps that are left" in caplog.text
    logged = [(row["step"], row["loss"]) for row in read_metrics(tmp_path)]
    assert wandb.runs[0].rows == logged and wandb.runs[0].finished
    assert wandb.settings[0]["config"] == config.to_dict() and wandb.settings[0]["project"] == "digits"

    caplog.clear()
    longer = with_train(config, num_steps=15)
    train(longer, tmp_path, sinks=[WandbSink("digits", longer)])
    assert "goes on with train.num_steps=15, which was 12" in caplog.text
    assert wandb.settings[1]["id"] == wandb.settings[0]["id"] and [step for step, _ in wandb.runs[1].rows] == [13]
    assert caplog.text.count("wandb failed, and gets no more: no network") == 1
    assert len(read_metrics(tmp_path)) == 15

    other = config.replaced("model", scan="b", num_heads=1)
    with pytest.raises(
        CheckpointError, match="num_heads=1, but .* was trained with 2; model.scan='b', not 'd': set them"
    ):
        train(other, tmp_path)


def test_wandb_that_is_missing_or_does_not_start(tmp_path, wandb, monkeypatch):
    def fail(**settings):
        raise RuntimeError("no key")

    config = with_train(tiny_config(), num_steps=1)
    wandb.init = fail
    sink = WandbSink("digits", config)
    with pytest.raises(ConfigError, match="wandb does not start .no key.: `wandb login`, or leave wandb out"):
        sink.open(tmp_path, 0)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "wandb")
    with pytest.raises(ConfigError, match="wandb is not installed"):
        WandbSink("digits", config)


def test_memory_is_within_a_third_of_what_the_compiler_counts():
    seen = 0
    for name, found in json.loads(COUNTED.read_text()).items():
        if name == "date" or not found.get("memory") or "tensor=4" in name:
            continue
        settings = {section: fields for section, fields in found["settings"].items() if section != "mesh"}
        if settings["data"]["image_height"] > 512:
            continue
        settings["data"] |= dict(source="latents")
        settings["sample"] = dict(sampler="euler") if settings["diffusion"].get("objective") == "flow" else {}
        config = Config.from_dict(settings)
        needed = estimate_memory(config, parameters(config), found["mesh"], stores_logits=False).total
        assert needed == pytest.approx(found["needed_bytes"], rel=0.33), name
        seen += 1
    assert seen > 8


def parameters(config: Config) -> int:
    return count_params(abstract_params(network_of(config)))


def test_captions_count_among_the_tokens_of_attention():
    """Splash takes 256 tokens and more: 196 of an image and 77 of a caption are enough."""
    values = dict(num_heads=1, width=64, dtype="bfloat16")
    for config, backend in ((tiny_config("LEDiT", model=values), "xla"), (tiny_mmdit(model=values), "splash")):
        config = config.replaced("data", image_height=28, image_width=28)
        config = config.replaced("text", length=77) if config.model.network == "mmdit" else config
        assert config.num_tokens() == 196 and attention_backend(config, "tpu") == backend
