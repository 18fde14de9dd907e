"""Which recipe of configs/own_pictures.py fits which memory: the table of docs/your_own_pictures.md.

  python benchmarks/own_pictures.py

An estimate (ledit_jax/training/summary.py), held against the TPU compiler's counts for LEDiT-XL/2 in a test: within a
third. Attention that stores no logits, as on an L4, A100 or H100. Nothing is compiled, and nothing was run on a GPU.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from configs import own_pictures
from ledit_jax.config import Config
from ledit_jax.diffusion import make_process
from ledit_jax.models import abstract_params, count_params, make_network
from ledit_jax.training.summary import estimate_memory

GIB = 2**30
MEMORY = (16, 24, 40, 80)
"""GiB of a T4, an L4 or RTX 4090, an A100 and an H100."""
_SPARE = 0.85
"""Of a memory, what an estimate may take."""
_ONE_DEVICE = {"data": 1, "fsdp": 1, "tensor": 1}


def needed(recipe: str, batch_size: int, height: int = 256, width: int = 256) -> float:
    """GiB of a recipe's training with that many images a step."""
    values = own_pictures.get_config(recipe).to_dict()
    values["train"] |= dict(batch_size=batch_size)
    if recipe != "pixels":
        values["data"] |= dict(image_height=height, image_width=width)
    config = Config.from_dict(values)
    params = abstract_params(make_network(config, make_process(config)))
    stores_logits = config.model.dtype != "bfloat16"
    return estimate_memory(config, count_params(params), _ONE_DEVICE, stores_logits).total / GIB


def most_images(recipe: str, memory: float, **size: int) -> int:
    """The largest power of two of images a step that fits so many GiB, up to 256; 0 for none."""
    fits = [batch for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256) if needed(recipe, batch, **size) <= _SPARE * memory]
    return max(fits, default=0)


def table() -> str:
    """In Markdown: what a recipe takes as it is, and its largest batch by memory."""
    heads = ["recipe", "size", "its batch", "takes", *(f"{memory} GB" for memory in MEMORY)]
    rows = [heads, ["---"] * len(heads)]
    for recipe, (_, batch, *_rest) in own_pictures.RECIPES.items():
        for height, width in [(32, 32)] if recipe == "pixels" else [(256, 256), (512, 512)]:
            size = dict(height=height, width=width)
            largest = [most_images(recipe, memory, **size) or "-" for memory in MEMORY]
            rows.append([recipe, f"{height}x{width}", batch, f"{needed(recipe, batch, **size):.1f} GiB", *largest])
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(table())
