"""Encodes images with a VAE, once, so that training reads latents. After a kill, the same command goes on.

  python encode_latents.py --path=imagenet/train --vae=checkpoints/vae --output=latents/256 --num_workers=8
  python encode_latents.py --source=tfds --name=imagenet2012 --height=512 --width=512 --vae=VAE --output=latents/512
  python encode_latents.py --source=coco --path=coco/train2014 --annotations=coco/captions_train2014.json \\
      --vae=checkpoints/vae --text_encoder=checkpoints/clip --output=latents/coco256
  python train.py --config=configs/imagenet256.py --workdir=runs/xl2 --config.data.path=latents/256

Images are cropped as ADM crops them. Stored are mean and log-variance in float32, of each image and of its mirror
image, so that training draws flip and sample afresh each time: 64 KiB an image at 256x256, 256 KiB at 512x512.
--vae is what convert_torch_weights.py made of an autoencoder, Stable Diffusion's or DC-AE. With --text_encoder, which
it made of CLIP, the states of all captions of an image are stored as well: 115.5 KiB a caption in bfloat16.
All devices of the process share each batch. To share the work among processes or machines, start the same command once
for each with --part=0/8, --part=1/8 and so on (in a SLURM job --part=$SLURM_PROCID/$SLURM_NTASKS); they need nothing
in common but the folder. The last to finish writes metadata.json, without which training refuses the folder.

Exit code 0: this process's part is done. 1: stopped, as by SIGTERM, SIGHUP or Ctrl-C, or by a disk that ran full or
went away; the same command goes on. 2: something given cannot work. More in docs/data.md.
"""

import ledit_jax.early  # noqa: F401, before what takes seconds

import jax
from absl import flags

from ledit_jax import cli
from ledit_jax.config import DataConfig
from ledit_jax.data.caption_states import CaptionStates
from ledit_jax.data.encoding import encode_latents
from ledit_jax.data.latent_records import STATES
from ledit_jax.errors import ConfigError, DataError, OutputError
from ledit_jax.hub import resolve
from ledit_jax.models.vae_encoder import VAEEncoder
from ledit_jax.weights import load_text_encoder, load_vae, vae_description, vae_scale

_SOURCES = ["image_folder", "coco", "captioned_folder", "tfds", "digits", "glyphs", "shapes"]
SOURCE = flags.DEFINE_enum("source", "image_folder", _SOURCES, "Where images come from.")
PATH = flags.DEFINE_string("path", "", "The image folder; for tfds its data_dir (default: TFDS's own).")
ANNOTATIONS = flags.DEFINE_string("annotations", "", "COCO's JSON of captions, of coco.")
NAME = flags.DEFINE_string("name", "", "Data set of tfds, for example imagenet2012.")
SPLIT = flags.DEFINE_string("split", "train", "Part of tfds, digits, glyphs or shapes.")
VAE = flags.DEFINE_string("vae", None, "VAE checkpoint of ours, see docs/porting.md.")
TEXT_ENCODER = flags.DEFINE_string("text_encoder", None, "Text encoder checkpoint of ours: encodes the captions too.")
TEXT_DTYPE = flags.DEFINE_enum("text_dtype", "bfloat16", list(STATES), "What captions' states are stored as.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of latents to write, or to go on with.")
HEIGHT = flags.DEFINE_integer("height", 256, "Pixels that images are cropped to; a multiple of 8.", lower_bound=1)
WIDTH = flags.DEFINE_integer("width", 256, "Like --height.", lower_bound=1)
SCALE = flags.DEFINE_float("scale", None, "What training multiplies latents by; recorded. Default: the VAE's own.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at a time, over this process's devices.", lower_bound=1)
SHARD_SIZE = flags.DEFINE_integer("shard_size", 4096, "Images in a file: what a kill costs.", lower_bound=1)
NUM_WORKERS = flags.DEFINE_integer("num_workers", 0, "Processes that decode; 0 decodes in threads.", lower_bound=0)
MAX_BAD_SHARE = flags.DEFINE_float(
    "max_bad_share", 0.01, "Share of unreadable images that is skipped; more stop.", 0, 1
)
PART = flags.DEFINE_string("part", None, "INDEX/COUNT of this process, from 0/COUNT. Default: all, or as jax counts.")
cli.require("vae", "output")

# What the package calls the values of these flags.
_FIELDS = {"data.image_height": HEIGHT, "data.image_width": WIDTH} | {
    f"data.{flag.name}": flag for flag in (SOURCE, PATH, ANNOTATIONS, NAME, SPLIT, MAX_BAD_SHARE)
}


def main() -> None:
    fields = {field.removeprefix("data."): flag.value for field, flag in _FIELDS.items()}
    data = DataConfig(**fields, num_workers=NUM_WORKERS.value)
    vae = resolve(VAE.value)
    scale = vae_scale(vae) if SCALE.value is None else SCALE.value
    sizes = dict(scale=scale, batch_size=BATCH_SIZE.value, shard_size=SHARD_SIZE.value)
    encoder = VAEEncoder(VAE.value, *vae_description(vae), lambda: load_vae(vae))
    captions = None
    if TEXT_ENCODER.value:
        captions = CaptionStates(load_text_encoder(resolve(TEXT_ENCODER.value)), TEXT_DTYPE.value, TEXT_ENCODER.value)
    try:
        print(encode_latents(data, encoder, OUTPUT.value, **sizes, part=_part(), captions=captions))
    except (ConfigError, DataError, OutputError) as error:
        error.args = (_with_flags(str(error)),)
        raise


def _with_flags(message: str) -> str:
    """A message of the package, with the flags in place of the config fields that they fill."""
    for field, flag in _FIELDS.items():
        message = message.replace(f"{field}=", f"--{flag.name}=")
    return message


def _part() -> tuple[int, int]:
    if PART.value is None:
        return jax.process_index(), jax.process_count()
    index, _, count = PART.value.partition("/")
    if not (len(PART.value) < 20 and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--part={PART.value[:40]} must be INDEX/COUNT with INDEX from 0 to COUNT - 1, as in 0/8")
    return int(index), int(count)


if __name__ == "__main__":
    cli.run(main, __doc__)
