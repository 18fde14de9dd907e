"""Bad input to train.py and sample.py, as a user meets it: one line, exit code 2, no traceback, nothing written."""

import shutil
import signal
import subprocess
import sys

import jax
import pytest
from script_runs import ROOT, assert_one_line, run
from tiny import network_of, tiny_config

from ledit_jax.models.functional import init_params
from ledit_jax.weights import export_weights

DIGITS = "--config=configs/digits.py"


@pytest.mark.parametrize(
    "arguments, parts",
    [
        ([DIGITS, "--config.model.widht=3"], ["config key model.widht is unknown: did you mean model.width?"]),
        ([DIGITS, "--config.model.num_heads=7"], ["model.num_heads=7 does not divide model.width=96"]),
        ([DIGITS, "--config.model.scan=e"], ["model.scan='e' is unknown"]),
        ([DIGITS, "--config.model.attention=splash"], ["splash needs a TPU, and this is a cpu: use xla"]),
        (["--config=configs/imagenet256.py:LEDiT-Q/2"], ["model name 'LEDiT-Q/2' is unknown", "LEDiT-XL/2"]),
        (["--config=configs/nothing.py"], ["configs/nothing.py does not exist"]),
        ([DIGITS, "--steps=3"], ["Unknown command line flag 'steps'"]),
        ([DIGITS, "--init_from=/nothing"], ["checkpoint /nothing does not exist"]),
    ],
    ids=["key", "heads", "scan", "attention", "preset", "file", "flag", "init_from"],
)
def test_train(tmp_path, arguments, parts):
    result = run("train.py", *arguments, f"--workdir={tmp_path / 'run'}")
    assert_one_line(result, *parts)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_train_in_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert_one_line(run("train.py", DIGITS, f"--workdir={tmp_path / 'file' / 'run'}"), "cannot be written")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "c"
    config = tiny_config()
    export_weights(folder, init_params(network_of(config), jax.random.key(0)), config, step=1)
    return folder


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["--height=15"], ["height=15 is not a positive multiple of 2", "14 or 16"]),
        (["--class_labels=3,10"], ["class label 10 is out of range", "0 to 9"]),
        (["--class_labels=cat"], ["--class_labels=cat", "whole numbers"]),
        (["--sampler=dpmp"], ["sample.sampler='dpmp' is unknown", "dpmpp"]),
        (["--num_steps=1001"], ["sample.num_steps=1001 is more than diffusion.num_timesteps=1000"]),
    ],
    ids=["size", "label", "word", "sampler", "steps"],
)
def test_sample(tmp_path, checkpoint, arguments, parts):
    result = run("sample.py", f"--checkpoint={checkpoint}", f"--out={tmp_path / 'x.png'}", *arguments)
    assert_one_line(result, *parts)
    assert list(tmp_path.iterdir()) == []


def test_sample_from_a_damaged_checkpoint(tmp_path, checkpoint):
    """One line too, though reads of the other arrays are under way when the first of them fails."""
    shutil.copytree(checkpoint, tmp_path / "c")
    largest = max((p for p in (tmp_path / "c").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    result = run("sample.py", f"--checkpoint={tmp_path / 'c'}", f"--out={tmp_path / 'x.png'}")
    assert_one_line(result, "is damaged", "use another one")
    assert not (tmp_path / "x.png").exists()


def test_sample_keeps_what_is_there_and_replaces_it_when_told(tmp_path, checkpoint):
    out = tmp_path / "x.png"
    out.write_text("precious")
    assert_one_line(run("sample.py", f"--checkpoint={checkpoint}", f"--out={out}"), "exists already", "overwrite")
    assert out.read_text() == "precious"
    result = run("sample.py", f"--checkpoint={checkpoint}", f"--out={out}", "--overwrite", "--width=12")
    assert result.returncode == 0, result.stderr
    assert out.read_bytes().startswith(b"\x89PNG") and "wrote 10 images" in result.stdout


def test_a_reader_that_has_enough_ends_a_command_quietly():
    program = "from ledit_jax import cli; cli.run(lambda: print('a line\\n' * 100_000), '')"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 128 + signal.SIGPIPE


def test_help_teaches():
    """The first in an interpreter that starts from nothing, as the user's do."""
    for script in ("train.py", "sample.py", "evaluate.py"):
        if script == "train.py":
            command = [sys.executable, script, "--help"]
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        else:
            result = run(script, "--help")
        assert result.returncode == 0
        assert f"python {script}" in result.stdout
