"""Numbers and names that cannot be: one line at once, with an estimate of memory where that is what lacks."""

import jax
import pytest
from script_runs import run
from scripts.test_bad_input import DIGITS, assert_one_line
from tiny import network_of, tiny_config

from ledit_jax.models import init_params
from ledit_jax.weights import export_weights


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("checkpoint") / "c", tiny_config()
    export_weights(folder, init_params(network_of(config), jax.random.key(0)), config, step=1)
    return folder


@pytest.mark.parametrize(
    "setting, says",
    [
        ("train.seed=9223372036854775808", "train.seed=9223372036854775808 is too large: whole numbers are less"),
        ("model.depth=1000000", "model.depth=1000000 blocks take hours to compile"),
        ("model.width=1152000", "model.mlp_ratio=4 and model.num_classes=10 make 348 TiB of weights or more"),
        ("model.num_classes=1000000000", "GiB of memory or more, and there are "),
        ("model.num_classes=2147483648", "model.num_classes=2147483648 is too large: use less than 2^31"),
        ("data.image_height=1000000000000", "data.image_height=1000000000000 is too large"),
        ("data.image_height=10000", "logits for train.batch_size=64 with data.image_height=10000 and "),
        ("diffusion.num_timesteps=1000000000000", "diffusion.num_timesteps=1000000000000 is too large"),
        ("diffusion.num_timesteps=0", "diffusion.num_timesteps=0 must be greater than 0"),
        ("train.batch_size=²", "--config.train.batch_size=²"),
    ],
)
def test_training(tmp_path, setting, says):
    assert_one_line(run("train.py", DIGITS, f"--workdir={tmp_path / 'run'}", f"--config.{setting}"), says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--seed=9223372036854775808"], "seed=9223372036854775808 is too large: use one that is less than 2^63"),
        (["--class_labels=2147483648"], "class label 2147483648 is out of range: this model's classes are 0 to 9"),
        (["--class_labels=9" + "9" * 5000], "must be whole numbers"),
        (["--class_labels=²"], "--class_labels=² must be whole numbers"),
        (["--class_labels=--5"], "--class_labels=--5 must be whole numbers"),
        (["--height=1000000", "--batch_size=1"], "logits for batch_size=1 with height=1000000 and width=8 need "),
        (["--height=20000", "--width=20000", "--num_samples=1"], "batch_size=64 with height=20000 and width=20000"),
        (["--batch_size=1000000000000"], "batch_size=1000000000000 with height=8 and width=8 need "),
        (["--num_samples=1000000000000"], "num_samples=1000000000000 with height=8 and width=8 are 178,813.9 GiB"),
        (["--out=."], "out=. is a folder that is there, and no name for samples"),
        (["--out=/"], "out=/ is a folder that is there, and no name for samples"),
        (["--out=/tmp/" + "n" * 300], "is too long a name: use at most 200 bytes"),
        (["--out=x.npy", "--checkpoint=/nothing"], "out=x.npy has an unknown ending"),
    ],
    ids=lambda value: value[0][:30] if isinstance(value, list) else "",
)
def test_sampling(tmp_path, checkpoint, flags, says):
    out = f"--out={tmp_path / 'x.npz'}"
    result = run("sample.py", f"--checkpoint={checkpoint}", out, "--num_steps=2", *flags)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert last.startswith("error: ") and says in last
    assert not list(tmp_path.iterdir()), "other settings find no trace of these"


def test_an_output_that_cannot_be_is_refused_before_the_work(tmp_path):
    """Nothing is there to be measured, and nothing is looked for."""
    flags = ["--reference=/nothing.npz", "--inception=/nothing.pth", f"--save_reference={tmp_path / 'x.bin'}"]
    assert_one_line(run("evaluate.py", *flags), "x.bin must end in .npz to hold statistics")
