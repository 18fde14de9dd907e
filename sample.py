"""Draws images from a checkpoint, at any size and aspect ratio. The checkpoint brings its own config.

  python sample.py --checkpoint=runs/digits --height=32 --width=32 --class_labels=3,7 --num_samples=20 --out=grid.png
  python sample.py --checkpoint=runs/xl2 --height=512 --width=384 --class_labels=207,360 --num_samples=8 \\
      --sampler=ddpm --num_steps=250 --cfg_scale=4.0 --out=grid.png

  python sample.py --checkpoint=runs/xl2 --num_samples=50000 --labels=random --out=x.npz      (for evaluate.py)

  python sample.py --config=configs/imagenet256.py:LEDiT-XL/2 --height=512 --width=512 --compile_only=v5e:4x4

compiles one denoising step for a TPU slice with no TPU there, and says whether it fits (docs/compile_only.md).

--out=x.png is a grid, --out=folder one PNG for each, --out=x.npz the layout of ADM's evaluation suite. The last two
are drawn in shards: the same command goes on after a kill. x.recipe.json says how they were made.
What is not given comes from the checkpoint's config. Image i depends on --seed and i alone: neither on the batch
size nor on the devices. Fewer steps: --sampler=dpmpp --num_steps=25 comes close to 250 steps of ddpm.
"""

import jax
from absl import flags

from ledit_jax import cli
from ledit_jax.compile_only.programs import report_denoising_step
from ledit_jax.config import Config, SampleConfig
from ledit_jax.errors import ConfigError
from ledit_jax.parallel.processes import is_main_process
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.run import Recipe, write_grid, write_samples
from ledit_jax.weights import find_checkpoint, load_description, weights_id

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of train.py, or a checkpoint folder.")
WEIGHTS = flags.DEFINE_enum("weights", "ema", ["ema", "params"], "Averaged weights (results use these) or raw ones.")
VAE = flags.DEFINE_string("vae", None, "VAE checkpoint that decodes latents. Default: the one the config names.")
OUT = flags.DEFINE_string("out", None, "x.png (grid), x.npz (ADM's layout) or a folder name (one PNG each).")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what --out names.")
HEIGHT = flags.DEFINE_integer("height", None, "Pixels; a multiple of patch size x downsampling. Default: as trained.")
WIDTH = flags.DEFINE_integer("width", None, "Like --height.")
CLASSES = flags.DEFINE_list("class_labels", None, "Classes to draw, for example 207,360. Default: all.")
LABELS = flags.DEFINE_enum(
    "labels", "balanced", ["balanced", "random"], "Classes in turn, equally often, or each drawn uniformly at random."
)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "Images to draw. Default: one for each of --class_labels.")
SEED = flags.DEFINE_integer("seed", 0, "Image i is a function of the seed and i.")
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "Images at a time on each device; less needs less memory.", lower_bound=1
)
COLUMNS = flags.DEFINE_integer("columns", 8, "Columns of the grid.", lower_bound=1)
cli.define_setting_flags(SampleConfig)
cli.define_process_flags()
cli.define_config_flag("In place of --checkpoint, for --compile_only: the experiment whose model is compiled.")
cli.define_compile_only_flag({"checkpoint": "what to draw from", "out": "where images go"})


def main() -> None:
    if flags.FLAGS.compile_only:
        compile_only(flags.FLAGS.compile_only)
    cli.start_distributed()
    is_grid = OUT.value.endswith(".png")  # which all processes draw together; of shards, each draws its own
    devices = None if is_grid else jax.local_devices()
    pipeline = LEDiTPipeline.from_checkpoint(CHECKPOINT.value, WEIGHTS.value, VAE.value, devices=devices)
    recipe, sizes = make_recipe(pipeline), dict(batch_size=BATCH_SIZE.value, overwrite=OVERWRITE.value)
    if is_grid:
        write_grid(OUT.value, pipeline, recipe, columns=COLUMNS.value, **sizes)
    else:
        write_samples(OUT.value, pipeline, recipe, **sizes)
    if is_main_process():
        print(f"wrote {recipe.num_samples} images to {OUT.value}")


def make_recipe(pipeline: LEDiTPipeline) -> Recipe:
    config, folder = pipeline.config, find_checkpoint(CHECKPOINT.value)
    classes = parse_classes(config.model.num_classes)
    num_samples = len(classes) if NUM_SAMPLES.value is None else NUM_SAMPLES.value
    if num_samples < 1:
        raise ConfigError(f"--num_samples={num_samples} must be at least 1")
    vae = VAE.value or config.autoencoder.checkpoint or None
    return Recipe(
        checkpoint=str(folder),
        step=load_description(folder)["step"],
        weights=WEIGHTS.value,
        weights_id=weights_id(folder, WEIGHTS.value),
        vae=vae,
        vae_id=weights_id(vae, "vae") if vae else None,
        labels=LABELS.value,
        classes=classes,
        num_samples=num_samples,
        height=config.data.image_height if HEIGHT.value is None else HEIGHT.value,
        width=config.data.image_width if WIDTH.value is None else WIDTH.value,
        seed=SEED.value,
        options=pipeline.options(**cli.given_settings(SampleConfig)),
    )


def parse_classes(num_classes: int) -> tuple[int, ...]:
    try:
        return tuple(int(label) for label in CLASSES.value) if CLASSES.value else tuple(range(num_classes))
    except ValueError as error:
        raise ConfigError(
            f"--class_labels={','.join(CLASSES.value)}: classes are whole numbers, as in 207,360"
        ) from error


def compile_only(topology: str) -> None:
    """Prints what a denoising step needs on a TPU slice, and leaves."""
    if CHECKPOINT.value:
        config = Config.from_dict(load_description(find_checkpoint(CHECKPOINT.value))["config"]).for_any_device()
    elif flags.FLAGS.config is not None:
        config = cli.load_config()
    else:
        raise ConfigError("--compile_only needs a model: give --checkpoint or --config")
    config = config.replaced("sample", **cli.given_settings(SampleConfig))
    report = report_denoising_step(config, topology, HEIGHT.value, WIDTH.value, BATCH_SIZE.value)
    cli.finish_compile_only(str(report), report.to_json(), report.fits)


if __name__ == "__main__":
    cli.run(main, __doc__)
