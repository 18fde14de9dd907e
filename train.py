"""Trains LEDiT, or a baseline, from a config. The same command again resumes where the last one stopped.

  python train.py --config=configs/digits.py --workdir=runs/digits
  python train.py --config=configs/imagenet256.py:LEDiT-XL/2 --workdir=runs/xl2 --config.data.path=LATENTS
  python train.py --config=configs/imagenet256_finetune.py --workdir=runs/ft --init_from=CHECKPOINT

Any setting of ledit_jax/config/sections.py can be overridden: --config.train.batch_size=64 --config.model.scan=b

  python train.py --config=configs/imagenet256.py:LEDiT-XL/2 --compile_only=v5e:4x4

compiles the step for a TPU slice with no TPU there, and says whether it fits (docs/compile_only.md).

WORKDIR/metrics.jsonl holds the metrics of every logged step, TensorBoard events lie beside it, sample grids in
WORKDIR/samples (of a model of text for captions of its data, prompts.txt there), and in WORKDIR/run.json the config,
versions and source revision of every start. --profile=100:5 writes a trace of five steps to WORKDIR/profile. Ctrl-C,
SIGHUP and SIGTERM save a checkpoint first; exit code 0 means saved, 1 that the run had to stop (a loss that is not
finite, a signal while starting), 2 that a setting cannot work.
"""

import ledit_jax.early  # noqa: F401, before what takes seconds

from absl import flags

from ledit_jax import cli
from ledit_jax.compile_only.programs import report_train_step
from ledit_jax.config import Config
from ledit_jax.data import make_source
from ledit_jax.files import Place, as_place, write_whole
from ledit_jax.hub import resolve
from ledit_jax.parallel.processes import is_main_process
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.prompts import example_captions
from ledit_jax.sampling.sheets import image_grid, save_png
from ledit_jax.training.hooks import Hook
from ledit_jax.training.loop import train
from ledit_jax.training.profile import parse_profile
from ledit_jax.training.wandb_sink import WandbSink
from ledit_jax.weights import load_vae

cli.define_config_flag("Experiment, for example configs/digits.py; an argument may follow a colon.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints and metrics go; resumed from if it has any.")
INIT_FROM = flags.DEFINE_string(
    "init_from",
    None,
    "Checkpoint, or hf://org/name, whose weights start a new run; has no effect once it has resumed.",
)
RESUME_FROM = flags.DEFINE_integer(
    "resume_from", None, "Step of a checkpoint of WORKDIR to go back to, once; newer ones go to WORKDIR/set_aside."
)
PROFILE = flags.DEFINE_string(
    "profile", None, "START:COUNT traces so many steps from step START on (0 is the first) into WORKDIR/profile."
)
WANDB = flags.DEFINE_string("wandb", None, "Project of Weights & Biases that metrics are sent to as well.")
cli.define_process_flags()
cli.define_compile_only_flag({"workdir": "where checkpoints and metrics go"})
flags.declare_key_flag("config")
cli.require("config")


def sample_grids(config: Config, folder: Place, rows: int = 4, columns: int = 10) -> Hook:
    """Draws a grid from a run's EMA weights, a column for each of the first classes, or for captions of its data."""
    vae = load_vae(resolve(config.autoencoder.checkpoint)) if config.autoencoder.checkpoint else None
    pipeline = LEDiTPipeline(config, {}, vae)
    options = pipeline.options(negative_prompt="")  # which would need the text encoder
    asked, texts = list(range(min(columns, config.model.num_classes))), []
    if pipeline.prompts.are_text:
        source = make_source(config.data, config.autoencoder)
        asked, texts = example_captions(pipeline.network.condition, source, columns)

    def draw(params, step: int) -> None:
        pipeline.set_params(params)
        images = pipeline(asked * rows, options=options)  # all processes draw together, one writes
        if is_main_process():
            save_png(image_grid(images, len(asked), framed=True), folder / f"step_{step:07d}.png")
            if texts:
                write_whole(folder / "prompts.txt", "\n".join(texts) + "\n")

    return Hook(config.train.sample_every, draw)


def main() -> None:
    config = cli.load_config()
    if flags.FLAGS.compile_only:
        report = report_train_step(config, flags.FLAGS.compile_only)
        cli.finish_compile_only(str(report), report.to_json(), report.fits)
    cli.start_distributed()
    workdir = as_place(WORKDIR.value)
    hooks = [sample_grids(config, workdir / "samples")] if config.train.sample_every else []
    profile = parse_profile(PROFILE.value, config.train.num_steps) if PROFILE.value else None
    given = dict(init_from=INIT_FROM.value, resume_from=RESUME_FROM.value)
    sinks = [WandbSink(WANDB.value, config)] if WANDB.value else []
    train(config, workdir, **given, hooks=hooks, sinks=sinks, profile=profile)


if __name__ == "__main__":
    cli.run(main, __doc__)
