"""Converts pretrained weights between PyTorch and checkpoints of ours. It recognises what it is given.

  python convert_torch_weights.py --input=DiT-XL-2-256x256.pt --output=checkpoints/dit-xl-2
  python convert_torch_weights.py --input=DiT-XL-2-256 --output=checkpoints/dit-xl-2     (diffusers' folder)
  python convert_torch_weights.py --input=SiT-XL-2-256.pt --model=SiT-XL/2 --output=checkpoints/sit-xl-2
  python convert_torch_weights.py --input=sd-vae-ft-ema --output=checkpoints/vae         (its autoencoder)
  python convert_torch_weights.py --input=clip-vit-large-patch14 --output=checkpoints/clip
  python convert_torch_weights.py --input=pt_inception-2015-12-05-6726825d.pth --output=inception.npz
  python convert_torch_weights.py --to=torch --input=runs/ft --output=ledit-xl-2.safetensors
  python convert_torch_weights.py --to=diffusers --input=checkpoints/mmdit --output=mmdit   (SD3Transformer2DModel)

Read: state dicts and training files of DiT, SiT, REPA (its MMDiT too) and LEDiT as .pt or .safetensors, diffusers' DiT
and SD3 without pooled text (a transformer folder or a whole pipeline's), the Stable Diffusion autoencoder as diffusers
or CompVis wrote it, DC-AE as diffusers did, and transformers' CLIP, both towers or the text encoder, with the
tokenizer's files. The result is what train.py writes: for sample.py, train.py --init_from and load_model, none of which
needs PyTorch. The Inception network of evaluate.py, in PyTorch's port or TensorFlow's graph, becomes one .npz. Code in
a pickle is refused.
Exit code 2 means that nothing was written, and the message says why. More in docs/porting.md.
"""

import ledit_jax.early  # noqa: F401, before what takes seconds

import jax
from absl import flags

from ledit_jax import cli
from ledit_jax.convert.inception import convert_inception, is_inception
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.convert.write import convert_to_torch
from ledit_jax.convert.write_diffusers import convert_to_diffusers

INPUT = flags.DEFINE_string("input", None, "A file or folder of PyTorch weights; with --to=torch a checkpoint of ours.")
OUTPUT = flags.DEFINE_string("output", None, "Folder to write; with --to=torch a name ending in .pt or .safetensors.")
TO = flags.DEFINE_enum("to", "jax", ["jax", "torch", "diffusers"], "Direction; diffusers writes an MMDiT as a folder.")
MODEL = flags.DEFINE_string(
    "model", None, "What the input has to be: DiT-XL/2, SiT-XL/2, REPA-XL/2, ... Default: what it is."
)
NUM_HEADS = flags.DEFINE_integer("num_heads", None, "Attention heads, where no preset has the width.", lower_bound=1)
SHIFT = flags.DEFINE_enum(
    "timestep_frequency_shift",
    None,
    ["0", "1"],
    "Of a DiT's timestep frequencies: 0 as DiT's weights were trained, 1 as diffusers computes. Default: as the "
    "input's own code, so 1 for diffusers' folders.",
)
OBJECTIVE = flags.DEFINE_enum(
    "objective",
    None,
    ["noise", "flow"],
    "What a network of DiT's shapes learned, which no tensor tells: noise (DiT) or a flow's velocity (SiT, REPA). "
    "Default: as --model or the file's name says.",
)
WEIGHTS = flags.DEFINE_enum("weights", "ema", ["ema", "model"], "Of a training run: averaged weights, or raw ones.")
TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "Folder of a text encoder's tokenizer. Default: where the weights lie, or a pipeline's."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what --output names.")
cli.require("input", "output")


def main() -> None:
    jax.config.update("jax_platforms", "cpu")  # nothing is computed: leave accelerators to others
    if TO.value == "torch":
        convert_to_torch(INPUT.value, OUTPUT.value, weights=WEIGHTS.value, overwrite=OVERWRITE.value)
    elif TO.value == "diffusers":
        convert_to_diffusers(INPUT.value, OUTPUT.value, weights=WEIGHTS.value, overwrite=OVERWRITE.value)
    elif is_inception(INPUT.value):
        convert_inception(INPUT.value, OUTPUT.value, OVERWRITE.value)
    else:
        convert_to_checkpoint(
            INPUT.value,
            OUTPUT.value,
            model=MODEL.value,
            num_heads=NUM_HEADS.value,
            weights=WEIGHTS.value,
            objective=OBJECTIVE.value,
            frequency_shift=None if SHIFT.value is None else float(SHIFT.value),
            tokenizer=TOKENIZER.value,
            overwrite=OVERWRITE.value,
        )
    print(f"wrote {OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main, __doc__)
