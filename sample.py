"""Draws images from a checkpoint, at any size and aspect ratio. The checkpoint brings its own config.

  python sample.py --checkpoint=runs/digits --height=32 --width=32 --class_labels=3,7 --num_samples=20 --out=grid.png
  python sample.py --checkpoint=runs/xl2 --num_samples=50000 --labels=random --out=x.npz      (for evaluate.py)
  python sample.py --checkpoint=runs/coco --prompt="a red bus" --negative_prompt="people" --num_samples=4 --out=bus.png
  python sample.py --checkpoint=hf://facebook/DiT-XL-2-256 --class_labels=207,360 --out=dogs.png
  python sample.py --config=configs/imagenet256.py:LEDiT-XL/2 --height=512 --width=512 --compile_only=v5e:4x4

hf://org/name[@revision] is a model of the hub, fetched and converted once (docs/porting.md); DiT-XL-2-256x256.pt is
DiT's own. The last one compiles a step and the decoder for a TPU slice with no TPU present, and says whether both fit.
--out=x.png is a grid, or with --strip=8 eight stages of each sample, from noise to image; --out=folder is one PNG for
each, --out=x.npz the layout of ADM's evaluation suite. The last two are drawn in shards: the same command goes on after
a kill. x.recipe.json says how they were made; prompts are kept beside the images, in the npz or in prompts.txt. Image i
depends on --seed and i alone, not on batch or devices. --sampler=dpmpp --num_steps=25 comes close to 250 steps of ddpm.
Exit code 0: all is written. 1: stopped, as by SIGTERM, SIGHUP or Ctrl-C. 2: something given cannot work.
"""

import ledit_jax.early  # noqa: F401, before what takes seconds

import jax
from absl import flags

from ledit_jax import cli
from ledit_jax.compile_only.programs import report_sampling
from ledit_jax.config import SampleConfig
from ledit_jax.errors import ConfigError
from ledit_jax.files import as_place
from ledit_jax.hub import resolve
from ledit_jax.parallel.processes import is_main_process
from ledit_jax.sampling.loading import find_vae_sizes
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.prompts import find_prompts
from ledit_jax.sampling.recipe import make_recipe
from ledit_jax.sampling.run import write_grid, write_samples
from ledit_jax.sampling.strips import write_strip
from ledit_jax.sampling.writers import check_name
from ledit_jax.weights import find_checkpoint, load_config

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of train.py, a checkpoint folder, or hf://org/name.")
WEIGHTS = flags.DEFINE_enum("weights", "ema", ["ema", "params"], "Averaged weights (results use these) or raw ones.")
VAE = flags.DEFINE_string("vae", None, "VAE checkpoint, or hf://org/name, for latents. Default: the model's own.")
TEXT_ENCODER = flags.DEFINE_string("text_encoder", None, "Text encoder checkpoint, for prompts. Default: the config's.")
OUT = flags.DEFINE_string("out", None, "x.png (grid), x.npz (ADM's layout) or a folder name (one PNG each).")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what --out names.")
HEIGHT = flags.DEFINE_integer("height", None, "Pixels; a multiple of patch size x downsampling. Default: as trained.")
WIDTH = flags.DEFINE_integer("width", None, "Like --height.")
CLASSES = flags.DEFINE_list("class_labels", None, "Classes to draw, for example 207,360. Default: all.")
PROMPT = flags.DEFINE_string("prompt", None, "What to draw, of a model that draws from text.")
PROMPTS = flags.DEFINE_string("prompts", None, "File of prompts, one a line, or COCO's JSON of captions.")
LABELS = flags.DEFINE_enum("labels", "balanced", ["balanced", "random"], "Classes or prompts in turn, or at random.")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "Images to draw. Default: one for each class, or prompt.")
SEED = flags.DEFINE_integer("seed", 0, "Image i is a function of the seed and i.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time on each device.", lower_bound=1)
DECODER_GIB = flags.DEFINE_float("decoder_gib", None, "GiB to decode in. Default: 2/3 of a device's.", lower_bound=0.1)
STRIP = flags.DEFINE_integer("strip", None, "With --out=x.png: this many stages of each sample, from noise to image.")
COLUMNS = flags.DEFINE_integer("columns", 8, "Columns of the grid.", lower_bound=1)
cli.define_setting_flags(SampleConfig)
cli.define_process_flags()
cli.define_config_flag("In place of --checkpoint, for --compile_only: the experiment whose model is compiled.")
cli.define_compile_only_flag({"checkpoint": "what to draw from", "out": "where images go"})


def main() -> None:
    if flags.FLAGS.compile_only:
        compile_only(flags.FLAGS.compile_only)
    check_name(as_place(OUT.value))
    cli.start_distributed(stop_together=False)  # what a process has drawn is kept, whatever the others do
    is_grid = OUT.value.endswith(".png")  # which all processes draw together; of shards, each draws its own
    asked = dict(classes=cli.whole_numbers(CLASSES), prompts=find_prompts(PROMPT.value, PROMPTS.value))
    weights = dict(checkpoint=resolve(CHECKPOINT.value), weights=WEIGHTS.value, vae=VAE.value)
    devices = None if is_grid else jax.local_devices()
    pipeline = LEDiTPipeline.from_checkpoint(**weights, text_encoder=TEXT_ENCODER.value, devices=devices)
    pipeline.decoder_gib = DECODER_GIB.value
    asked |= {flag.name: flag.value for flag in (LABELS, NUM_SAMPLES, HEIGHT, WIDTH, SEED)}
    recipe = make_recipe(pipeline, **weights, **asked, options=pipeline.options(**cli.given_settings(SampleConfig)))
    sizes = dict(batch_size=BATCH_SIZE.value, overwrite=OVERWRITE.value)
    if STRIP.value is not None:
        write_strip(OUT.value, pipeline, recipe, STRIP.value, OVERWRITE.value)
    elif is_grid:
        write_grid(OUT.value, pipeline, recipe, columns=COLUMNS.value, **sizes)
    else:
        write_samples(OUT.value, pipeline, recipe, **sizes)
    if is_main_process():
        print(f"wrote {recipe.num_samples} images to {OUT.value}")


def compile_only(topology: str) -> None:
    """Prints what a denoising step and the decoder need on a TPU slice, and leaves."""
    if not CHECKPOINT.value and flags.FLAGS.config is None:
        raise ConfigError("--compile_only needs a model: give --checkpoint or --config")
    checkpoint = resolve(CHECKPOINT.value or "")
    config = load_config(find_checkpoint(checkpoint)).for_any_device() if checkpoint else cli.load_config()
    config = config.replaced("sample", **cli.given_settings(SampleConfig))
    vae = find_vae_sizes(config, checkpoint, VAE.value)
    report = report_sampling(config, topology, HEIGHT.value, WIDTH.value, BATCH_SIZE.value, DECODER_GIB.value, vae)
    cli.finish_compile_only(str(report), report.to_json(), report.fits)


if __name__ == "__main__":
    cli.run(main, __doc__)
